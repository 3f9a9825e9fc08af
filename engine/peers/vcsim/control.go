package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/vmware/govmomi/find"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// command is a line on standard input. What is not of its kind is left out.
//
//	{"do": "list"}                                                     the machines
//	{"do": "write", "machine": "web", "disk": "scsi0:0",
//	 "offset": 0, "length": 512, "seed": 7}                            the guest writes; zeros without a seed
//	{"do": "save", "machine": "web", "disk": "scsi0:0", "file": PATH}  copy what the guest would read to a file
//	{"do": "snapshot", "machine": "web", "name": "before the upgrade"} somebody else makes a snapshot
//	{"do": "remove-snapshot", "machine": "web", "name": "..."}         and removes it
//	{"do": "reset-tracking", "machine": "web"}                         the next snapshot begins another epoch
//	{"do": "power", "machine": "web", "on": false}                     switch it on or off
//	{"do": "sessions"}                                                 how many sessions there are
//	{"do": "end-sessions"}                                             end them all; how many there were
//
// The answer is {"result": ...}, or {"error": "...", "result": null}.
type command struct {
	Do      string  `json:"do"`
	Machine string  `json:"machine"`
	Disk    string  `json:"disk"`
	Offset  int64   `json:"offset"`
	Length  int64   `json:"length"`
	Seed    *uint64 `json:"seed"`
	File    string  `json:"file"`
	Name    string  `json:"name"`
	On      bool    `json:"on"`
}

// machine is what list says of one.
type machine struct {
	Name           string         `json:"name"`
	Path           string         `json:"path"` // such as /DC0/vm/web
	Object         string         `json:"object"`
	InstanceUUID   string         `json:"instance_uuid"`
	On             bool           `json:"on"`
	ChangeTracking bool           `json:"change_tracking"`
	Snapshots      []snapshotName `json:"snapshots"` // from the oldest to the newest
	Disks          []diskState    `json:"disks"`
}

type snapshotName struct {
	Object      string `json:"object"`
	Name        string `json:"name"`
	Description string `json:"description"`
	Quiesced    bool   `json:"quiesced"`
}

type diskState struct {
	Name     string `json:"name"` // such as scsi0:0
	Key      int32  `json:"key"`
	Capacity int64  `json:"capacity"`
	File     string `json:"file"` // where writes go
	Flat     string `json:"flat"` // the path, on this machine, of the file with what the oldest snapshot froze
	ChangeID string `json:"change_id"`
}

func (c *center) command(line []byte) (any, error) {
	var command command
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&command); err != nil {
		return nil, err
	}
	switch command.Do {
	case "list":
		return c.list()
	case "write":
		of := extent{command.Offset, command.Offset + command.Length}
		return nil, c.withDisk(command, func(d *disk) error { return d.write(write{of, command.Seed}) })
	case "save":
		return nil, c.withDisk(command, func(d *disk) error { return d.save(command.File) })
	case "snapshot":
		return nil, c.changeMachine(command.Machine, func(ctx context.Context, vm *object.VirtualMachine) (*object.Task, error) {
			return vm.CreateSnapshot(ctx, command.Name, "", false, false)
		})
	case "remove-snapshot":
		return nil, c.changeMachine(command.Machine, func(ctx context.Context, vm *object.VirtualMachine) (*object.Task, error) {
			return vm.RemoveSnapshot(ctx, command.Name, false, nil)
		})
	case "reset-tracking":
		return nil, c.withMachine(command.Machine, func(_ *simulator.VirtualMachine, known *disks) error {
			for _, d := range known.byKey {
				d.reset()
			}
			return nil
		})
	case "power":
		return nil, c.changeMachine(command.Machine, func(ctx context.Context, vm *object.VirtualMachine) (*object.Task, error) {
			if command.On {
				return vm.PowerOn(ctx)
			}
			return vm.PowerOff(ctx)
		})
	case "sessions":
		return len(c.sessions()), nil
	case "end-sessions":
		return c.endSessions()
	}
	return nil, fmt.Errorf("there is no command %q", command.Do)
}

// list describes all machines, in the order of their names.
func (c *center) list() ([]machine, error) {
	all := []machine{}
	for _, entity := range c.model.Map().All("VirtualMachine") {
		err := c.with(entity.Reference(), func(vm *simulator.VirtualMachine, known *disks) error {
			all = append(all, describe(vm, known))
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	for i := range all {
		path, err := c.inventoryPath(all[i].Object)
		if err != nil {
			return nil, err
		}
		all[i].Path = path
	}
	slices.SortFunc(all, func(a, b machine) int { return bytes.Compare([]byte(a.Path), []byte(b.Path)) })
	return all, nil
}

func describe(vm *simulator.VirtualMachine, known *disks) machine {
	tracking := vm.Config.ChangeTrackingEnabled
	about := machine{
		Name:           vm.Name,
		Object:         vm.Self.Value,
		InstanceUUID:   vm.Config.InstanceUuid,
		On:             vm.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOn,
		ChangeTracking: tracking != nil && *tracking,
		Snapshots:      []snapshotName{},
		Disks:          []diskState{},
	}
	if vm.Snapshot != nil {
		about.Snapshots = snapshotNames(vm.Snapshot.RootSnapshotList)
	}
	for _, device := range virtualDisks(vm.Config.Hardware.Device) {
		d := known.byKey[device.Key]
		about.Disks = append(about.Disks, diskState{
			Name:     diskName(vm, device),
			Key:      device.Key,
			Capacity: device.CapacityInBytes,
			File:     d.files[len(d.files)-1],
			Flat:     d.flat,
			ChangeID: device.Backing.(*types.VirtualDiskFlatVer2BackingInfo).ChangeId,
		})
	}
	return about
}

func snapshotNames(tree []types.VirtualMachineSnapshotTree) []snapshotName {
	names := []snapshotName{}
	for _, node := range tree {
		names = append(names, snapshotName{node.Snapshot.Value, node.Name, node.Description, node.Quiesced})
		names = append(names, snapshotNames(node.ChildSnapshotList)...)
	}
	return names
}

func (c *center) inventoryPath(value string) (string, error) {
	client, err := c.client(context.Background())
	if err != nil {
		return "", err
	}
	reference := types.ManagedObjectReference{Type: "VirtualMachine", Value: value}
	return find.InventoryPath(context.Background(), client, reference)
}

// diskName returns a name such as scsi0:0.
func diskName(vm *simulator.VirtualMachine, disk *types.VirtualDisk) string {
	for _, device := range vm.Config.Hardware.Device {
		controller, ok := device.(types.BaseVirtualSCSIController)
		if ok && controller.GetVirtualSCSIController().Key == disk.ControllerKey && disk.UnitNumber != nil {
			return fmt.Sprintf("scsi%d:%d", controller.GetVirtualSCSIController().BusNumber, *disk.UnitNumber)
		}
	}
	return fmt.Sprintf("key %d", disk.Key)
}

func (c *center) withDisk(command command, f func(*disk) error) error {
	return c.withMachine(command.Machine, func(vm *simulator.VirtualMachine, known *disks) error {
		for _, device := range virtualDisks(vm.Config.Hardware.Device) {
			if diskName(vm, device) == command.Disk {
				return f(known.byKey[device.Key])
			}
		}
		return fmt.Errorf("machine %s has no disk %q", vm.Name, command.Disk)
	})
}

func (c *center) withMachine(name string, f func(*simulator.VirtualMachine, *disks) error) error {
	reference, err := c.find(name)
	if err != nil {
		return err
	}
	return c.with(reference, f)
}

// changeMachine runs a task as a client of the vCenter would.
func (c *center) changeMachine(
	name string,
	begin func(context.Context, *object.VirtualMachine) (*object.Task, error),
) error {
	reference, err := c.find(name)
	if err != nil {
		return err
	}
	ctx := context.Background()
	client, err := c.client(ctx)
	if err != nil {
		return err
	}
	task, err := begin(ctx, object.NewVirtualMachine(client, reference))
	if err != nil {
		return err
	}
	return task.Wait(ctx)
}

func (c *center) find(name string) (types.ManagedObjectReference, error) {
	for _, entity := range c.model.Map().All("VirtualMachine") {
		if entity.Entity().Name == name {
			return entity.Reference(), nil
		}
	}
	return types.ManagedObjectReference{}, fmt.Errorf("there is no machine %q", name)
}
