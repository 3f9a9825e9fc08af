package main

import (
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
)

// extent is the bytes of a disk from start up to end.
type extent struct{ start, end int64 }

// write is what the guest wrote: pseudo-random bytes, or zeros.
type write struct {
	extent
	seed *uint64
}

// change is a write as tracking sees it.
type change struct {
	extent
	// since is the sequence of the last snapshot before the write.
	since uint64
}

// disk is a virtual disk with its contents and its tracking.
//
// While the machine has snapshots, writes go to the newest layer, one for each snapshot, and the file with the contents
// stays as it was at the first snapshot. Removing a snapshot applies its layer to what is below: another layer, or the
// file. So a file that is read while there is a snapshot holds what the oldest snapshot holds, as a base disk does.
type disk struct {
	// flat is the path of the file with the contents, on this machine.
	flat     string
	capacity int64
	layers   [][]write
	// files are the datastore paths of the base disk and of the delta disk of each layer.
	files []string
	// deltas is how many delta disks were ever made, so that each has another name.
	deltas int

	// epoch is the first part of change ids, and empty while changes are not tracked.
	epoch string
	// sequence is the second part of the last change id.
	sequence uint64
	changes  []change
	// allocated is all that was ever written.
	allocated []extent
}

// fill gives the disk its first contents: half of the blocks at its beginning, the first one included, hold
// pseudo-random bytes.
func (d *disk) fill(seed uint64) error {
	const block, filled = 256 << 10, 64 << 20
	random := rand.New(rand.NewPCG(seed, 0))
	for start := int64(0); start < min(d.capacity, filled); start += block {
		if content := random.Uint64(); start == 0 || content&1 == 1 {
			end := min(start+block, d.capacity)
			if err := d.write(write{extent: extent{start, end}, seed: &content}); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *disk) write(w write) error {
	if w.start < 0 || w.end <= w.start || w.end > d.capacity {
		return fmt.Errorf("the disk has %d bytes", d.capacity)
	}
	if len(d.layers) > 0 {
		top := len(d.layers) - 1
		d.layers[top] = append(d.layers[top], w)
	} else if err := apply(d.flat, w); err != nil {
		return err
	}
	d.allocated = normalised(append(d.allocated, w.extent), d.capacity, 1)
	if d.epoch != "" {
		d.changes = append(d.changes, change{w.extent, d.sequence})
	}
	return nil
}

// save copies the contents, as the guest sees them now, to a file.
func (d *disk) save(path string) error {
	if err := copySparse(d.flat, path, d.capacity); err != nil {
		return err
	}
	return apply(path, slices.Concat(d.layers...)...)
}

// mark begins or ends tracking when a snapshot is made, and returns the snapshot's change id.
func (d *disk) mark(tracked bool) string {
	if !tracked {
		d.reset()
		return ""
	}
	if d.epoch == "" {
		d.epoch, d.sequence = newEpoch(), 0
	}
	d.sequence++
	return fmt.Sprintf("%s/%d", d.epoch, d.sequence)
}

// reset forgets all changes: the next snapshot begins another epoch.
func (d *disk) reset() {
	d.epoch, d.changes = "", nil
}

// push begins a layer, when a snapshot was made.
func (d *disk) push() {
	d.deltas++
	d.layers = append(d.layers, nil)
	d.files = append(d.files, fmt.Sprintf("%s-%06d.vmdk", strings.TrimSuffix(d.files[0], ".vmdk"), d.deltas))
}

// merge ends layer i, when its snapshot was removed.
func (d *disk) merge(i int) error {
	if i > 0 {
		d.layers[i-1] = append(d.layers[i-1], d.layers[i]...)
	} else if err := apply(d.flat, d.layers[0]...); err != nil {
		return err
	}
	d.layers = slices.Delete(d.layers, i, i+1)
	d.files = slices.Delete(d.files, i+1, i+2)
	return nil
}

var (
	errMalformed = errors.New("no change id")
	errEpoch     = errors.New("not of this epoch")
)

// changed returns what was written between the change ids of two snapshots.
func (d *disk) changed(from, to string) ([]extent, error) {
	fromEpoch, fromSequence, err := parseChangeID(from)
	if err != nil {
		return nil, err
	}
	toEpoch, toSequence, err := parseChangeID(to)
	if err != nil || toEpoch != d.epoch || fromEpoch != d.epoch || fromSequence > toSequence {
		return nil, errEpoch
	}
	var extents []extent
	for _, change := range d.changes {
		if change.since >= fromSequence && change.since < toSequence {
			extents = append(extents, change.extent)
		}
	}
	return extents, nil
}

func parseChangeID(id string) (epoch string, sequence uint64, err error) {
	epoch, number, found := strings.Cut(id, "/")
	if sequence, err = strconv.ParseUint(number, 10, 64); !found || epoch == "" || err != nil {
		return "", 0, errMalformed
	}
	return epoch, sequence, nil
}

// newEpoch returns 16 random bytes in the form of change ids: 52 06 ... 1a-b4 ... 0e.
func newEpoch() string {
	var bytes [16]byte
	binary.BigEndian.PutUint64(bytes[:8], rand.Uint64())
	binary.BigEndian.PutUint64(bytes[8:], rand.Uint64())
	text := []byte(fmt.Sprintf("% x", bytes))
	text[hex.EncodedLen(8)+7] = '-'
	return string(text)
}

// normalised returns extents that are rounded to a granularity, cut to the capacity, sorted and joined.
func normalised(extents []extent, capacity, granularity int64) []extent {
	rounded := make([]extent, 0, len(extents))
	for _, e := range extents {
		end := (e.end + granularity - 1) / granularity * granularity
		rounded = append(rounded, extent{e.start / granularity * granularity, min(end, capacity)})
	}
	slices.SortFunc(rounded, func(a, b extent) int { return cmp.Compare(a.start, b.start) })
	var joined []extent
	for _, e := range rounded {
		if last := len(joined) - 1; last >= 0 && e.start <= joined[last].end {
			joined[last].end = max(joined[last].end, e.end)
		} else {
			joined = append(joined, e)
		}
	}
	return joined
}

// apply writes to a file.
func apply(path string, writes ...write) error {
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	for _, w := range writes {
		bytes := make([]byte, w.end-w.start)
		if w.seed != nil {
			var seed [32]byte
			binary.LittleEndian.PutUint64(seed[:], *w.seed)
			// It never fails, and fills the buffer.
			_, _ = rand.NewChaCha8(seed).Read(bytes)
		}
		if _, err := file.WriteAt(bytes, w.start); err != nil {
			return errors.Join(err, file.Close())
		}
	}
	return file.Close()
}

// copySparse copies a file, and leaves holes where there are zeros.
func copySparse(from, to string, size int64) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.Create(to)
	if err != nil {
		return err
	}
	buffer := make([]byte, 64<<10)
	for offset := int64(0); ; {
		n, err := source.ReadAt(buffer, offset)
		if slices.ContainsFunc(buffer[:n], func(b byte) bool { return b != 0 }) {
			if _, err := target.WriteAt(buffer[:n], offset); err != nil {
				return errors.Join(err, target.Close())
			}
		}
		offset += int64(n)
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return errors.Join(err, target.Close())
		}
	}
	return errors.Join(target.Truncate(size), target.Close())
}
