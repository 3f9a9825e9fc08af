package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"sync"

	"github.com/vmware/govmomi/find"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/types"
)

// center is the simulator with the disks of its machines. Whoever wants the lock of a machine takes it before this one.
type center struct {
	model       *simulator.Model
	user        string
	page        int
	granularity int64

	lock     sync.Mutex
	machines map[types.ManagedObjectReference]*disks
}

// disks are those of a machine, with its snapshots from the oldest to the newest.
type disks struct {
	byKey     map[int32]*disk
	snapshots []snapshot
}

// snapshot is what is kept of one.
type snapshot struct {
	object types.ManagedObjectReference
	// allocated is what was written before it, by the key of the disk.
	allocated map[int32][]extent
}

func newCenter(model *simulator.Model, user string, page int, granularity int64) *center {
	machines := make(map[types.ManagedObjectReference]*disks)
	return &center{model: model, user: user, page: page, granularity: granularity, machines: machines}
}

// client returns one that calls methods without a network, and with their overrides.
func (c *center) client(ctx context.Context) (*vim25.Client, error) {
	return vim25.NewClient(ctx, c.model.Service)
}

// createMachine makes a virtual machine, gives its disks contents, and switches it on.
func (c *center) createMachine(wanted wanted, seed *uint64) error {
	ctx := context.Background()
	client, err := c.client(ctx)
	if err != nil {
		return err
	}
	finder := find.NewFinder(client, false)
	center, err := finder.DefaultDatacenter(ctx)
	if err != nil {
		return err
	}
	finder.SetDatacenter(center)
	folders, err := center.Folders(ctx)
	if err != nil {
		return err
	}
	pool, err := finder.DefaultResourcePool(ctx)
	if err != nil {
		return err
	}
	store, err := finder.DefaultDatastore(ctx)
	if err != nil {
		return err
	}
	spec, err := machineSpec(wanted, store.Name())
	if err != nil {
		return err
	}
	task, err := folders.VmFolder.CreateVM(ctx, *spec, pool, nil)
	if err != nil {
		return err
	}
	made, err := task.WaitForResult(ctx, nil)
	if err != nil {
		return err
	}
	vm := object.NewVirtualMachine(client, made.Result.(types.ManagedObjectReference))
	if err := c.fillDisks(vm.Reference(), seed); err != nil {
		return err
	}
	if task, err = vm.PowerOn(ctx); err != nil {
		return err
	}
	return task.Wait(ctx)
}

func machineSpec(wanted wanted, store string) (*types.VirtualMachineConfigSpec, error) {
	var devices object.VirtualDeviceList
	controller, err := devices.CreateSCSIController("pvscsi")
	if err != nil {
		return nil, err
	}
	controller.GetVirtualDevice().Key = 1000
	devices = append(devices, controller)
	for i, size := range wanted.disks {
		name := wanted.name + ".vmdk"
		if i > 0 {
			name = fmt.Sprintf("%s_%d.vmdk", wanted.name, i)
		}
		file := object.DatastorePath{Datastore: store, Path: path.Join(wanted.name, name)}
		disk := devices.CreateDisk(controller.(types.BaseVirtualController), types.ManagedObjectReference{}, file.String())
		// The keys that a vCenter would give.
		disk.Key = 2000 + *disk.UnitNumber
		disk.CapacityInKB = size / 1024
		devices = append(devices, disk)
	}
	changes, err := devices.ConfigSpec(types.VirtualDeviceConfigSpecOperationAdd)
	return &types.VirtualMachineConfigSpec{
		Name:         wanted.name,
		GuestId:      string(types.VirtualMachineGuestOsIdentifierOtherLinux64Guest),
		Files:        &types.VirtualMachineFileInfo{VmPathName: fmt.Sprintf("[%s]", store)},
		DeviceChange: changes,
	}, err
}

func (c *center) fillDisks(ref types.ManagedObjectReference, seed *uint64) error {
	return c.with(ref, func(vm *simulator.VirtualMachine, disks *disks) error {
		for _, device := range virtualDisks(vm.Config.Hardware.Device) {
			if err := disks.byKey[device.Key].fill(*seed); err != nil {
				return err
			}
			*seed++
		}
		return nil
	})
}

// with calls a function with a machine and what is known of its disks, both locked.
func (c *center) with(ref types.ManagedObjectReference, f func(*simulator.VirtualMachine, *disks) error) error {
	registry := c.model.Map()
	vm, ok := registry.Get(ref).(*simulator.VirtualMachine)
	if !ok {
		return fmt.Errorf("there is no machine %s", ref)
	}
	var err error
	ctx := &simulator.Context{Context: context.Background(), Map: registry}
	registry.WithLock(ctx, vm, func() { err = c.withLocked(vm, f) })
	return err
}

// withLocked is like with, for who holds the machine's lock.
func (c *center) withLocked(vm *simulator.VirtualMachine, f func(*simulator.VirtualMachine, *disks) error) error {
	c.lock.Lock()
	defer c.lock.Unlock()
	known, ok := c.machines[vm.Self]
	if !ok {
		known = &disks{byKey: make(map[int32]*disk)}
		c.machines[vm.Self] = known
	}
	if err := c.refresh(vm, known); err != nil {
		return err
	}
	return f(vm, known)
}

// refresh takes up disks that were added or extended, and forgets those that were removed.
func (c *center) refresh(vm *simulator.VirtualMachine, known *disks) error {
	there := make(map[int32]bool)
	for _, device := range virtualDisks(vm.Config.Hardware.Device) {
		there[device.Key] = true
		d, ok := known.byKey[device.Key]
		if !ok {
			name := device.Backing.(*types.VirtualDiskFlatVer2BackingInfo).FileName
			flat, err := c.flatFile(vm, name)
			if err != nil {
				return err
			}
			d = &disk{flat: flat, files: []string{name}}
			for range known.snapshots {
				d.push()
			}
			known.byKey[device.Key] = d
		}
		if d.capacity != device.CapacityInBytes {
			d.capacity = device.CapacityInBytes
			if err := grow(d.flat, d.capacity); err != nil {
				return err
			}
		}
	}
	for key := range known.byKey {
		if !there[key] {
			delete(known.byKey, key)
		}
	}
	return nil
}

// grow makes a file at least so long: a disk that two machines have is not cut by the one with the older view.
func grow(file string, size int64) error {
	info, err := os.Stat(file)
	if err != nil || info.Size() >= size {
		return err
	}
	return os.Truncate(file, size)
}

// flatFile returns the path, on this machine, of the file with the contents of a disk.
func (c *center) flatFile(vm *simulator.VirtualMachine, name string) (string, error) {
	var file object.DatastorePath
	if !file.FromString(name) {
		return "", errors.New("not in a datastore: " + name)
	}
	registry := c.model.Map()
	store, ok := registry.FindByName(file.Datastore, vm.Datastore).(*simulator.Datastore)
	if !ok {
		return "", errors.New("no such datastore: " + name)
	}
	return path.Join(store.Summary.Url, simulator.VirtualDiskBackingFileName(file.Path)), nil
}

// reconcile merges the layers of snapshots that the machine no longer has.
func (c *center) reconcile(vm *simulator.VirtualMachine, known *disks) error {
	var there []types.ManagedObjectReference
	if vm.Snapshot != nil {
		there = treeReferences(vm.Snapshot.RootSnapshotList)
	}
	for i := len(known.snapshots) - 1; i >= 0; i-- {
		if slices.Contains(there, known.snapshots[i].object) {
			continue
		}
		known.snapshots = slices.Delete(known.snapshots, i, i+1)
		for _, d := range known.byKey {
			if err := d.merge(i); err != nil {
				return err
			}
		}
	}
	c.restack(vm, known)
	return nil
}

// restack lets the machine write to the newest delta disk, and each snapshot's configuration name what it froze.
func (c *center) restack(vm *simulator.VirtualMachine, known *disks) {
	stack := func(devices []types.BaseVirtualDevice, depth int) {
		for _, device := range virtualDisks(devices) {
			if d, ok := known.byKey[device.Key]; ok {
				setBacking(device, d.files[:depth+1])
			}
		}
	}
	for depth, s := range known.snapshots {
		stack(c.model.Map().Get(s.object).(*simulator.VirtualMachineSnapshot).Config.Hardware.Device, depth)
	}
	stack(vm.Config.Hardware.Device, len(known.snapshots))
}

// setBacking lets a disk consist of these files, from the base to the newest.
func setBacking(device *types.VirtualDisk, files []string) {
	backing := *device.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
	backing.Parent = nil
	for _, file := range files[:len(files)-1] {
		below := backing
		below.FileName, below.ChangeId = file, ""
		backing.Parent = &below
	}
	backing.FileName = files[len(files)-1]
	device.Backing = &backing
}

// virtualDisks returns the disks that are files with their contents.
func virtualDisks(devices []types.BaseVirtualDevice) []*types.VirtualDisk {
	var disks []*types.VirtualDisk
	for _, device := range devices {
		if disk, ok := device.(*types.VirtualDisk); ok {
			if _, ok := disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo); ok {
				disks = append(disks, disk)
			}
		}
	}
	return disks
}

func treeReferences(tree []types.VirtualMachineSnapshotTree) []types.ManagedObjectReference {
	var references []types.ManagedObjectReference
	for _, node := range tree {
		references = append(references, node.Snapshot)
		references = append(references, treeReferences(node.ChildSnapshotList)...)
	}
	return references
}
