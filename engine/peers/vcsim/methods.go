package main

import (
	"context"
	"errors"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// override is asked by the simulator before it looks for the object of a call.
func (c *center) override(ctx *simulator.Context, method *simulator.Method) (mo.Reference, types.BaseMethodFault) {
	var object mo.Reference
	switch method.Name {
	case "CreateSnapshot_Task", "CreateSnapshotEx_Task", "RemoveAllSnapshots_Task", "QueryChangedDiskAreas":
		if vm, ok := ctx.Map.Get(method.This).(*simulator.VirtualMachine); ok {
			object = &trackedMachine{vm, c}
		}
	case "RemoveSnapshot_Task":
		if snapshot, ok := ctx.Map.Get(method.This).(*simulator.VirtualMachineSnapshot); ok {
			object = &trackedSnapshot{snapshot, c}
		}
	}
	if object != nil {
		// The simulator prefers what the session knows by this name, which is the object without the override. The
		// request, and the object itself, keep the right name.
		method.This.Value = "overridden " + method.This.Value
	}
	return object, nil
}

// trackedMachine is a virtual machine with the methods that snapshots and tracking need.
type trackedMachine struct {
	*simulator.VirtualMachine
	center *center
}

// CreateSnapshotTask adds change ids and delta disks.
func (t *trackedMachine) CreateSnapshotTask(ctx *simulator.Context, req *types.CreateSnapshot_Task) soap.HasFault {
	return t.createSnapshot(ctx, func() (soap.HasFault, types.ManagedObjectReference) {
		body := t.VirtualMachine.CreateSnapshotTask(ctx, req).(*methods.CreateSnapshot_TaskBody)
		return body, body.Res.Returnval
	})
}

// CreateSnapshotExTask adds change ids and delta disks.
func (t *trackedMachine) CreateSnapshotExTask(ctx *simulator.Context, req *types.CreateSnapshotEx_Task) soap.HasFault {
	return t.createSnapshot(ctx, func() (soap.HasFault, types.ManagedObjectReference) {
		body := t.VirtualMachine.CreateSnapshotExTask(ctx, req).(*methods.CreateSnapshotEx_TaskBody)
		return body, body.Res.Returnval
	})
}

// createSnapshot returns when the task is done, so that nobody sees the snapshot without what is added to it. The
// caller holds the machine's lock, and so does the task.
func (t *trackedMachine) createSnapshot(
	ctx *simulator.Context,
	create func() (soap.HasFault, types.ManagedObjectReference),
) soap.HasFault {
	var body soap.HasFault
	err := t.center.withLocked(t.VirtualMachine, func(vm *simulator.VirtualMachine, known *disks) error {
		tracked := vm.Config.ChangeTrackingEnabled != nil && *vm.Config.ChangeTrackingEnabled
		made := snapshot{allocated: make(map[int32][]extent)}
		for _, device := range virtualDisks(vm.Config.Hardware.Device) {
			d := known.byKey[device.Key]
			// The snapshot's configuration is a copy of this one.
			device.Backing.(*types.VirtualDiskFlatVer2BackingInfo).ChangeId = d.mark(tracked)
			made.allocated[device.Key] = d.allocated
		}
		var reference types.ManagedObjectReference
		body, reference = create()
		task := ctx.Map.Get(reference).(*simulator.Task)
		task.Wait()
		if task.Info.State != types.TaskInfoStateSuccess {
			return nil
		}
		made.object = task.Info.Result.(types.ManagedObjectReference)
		known.snapshots = append(known.snapshots, made)
		for _, d := range known.byKey {
			d.push()
		}
		t.center.restack(vm, known)
		return nil
	})
	return orFault(body, err)
}

// RemoveAllSnapshotsTask consolidates.
func (t *trackedMachine) RemoveAllSnapshotsTask(
	ctx *simulator.Context,
	req *types.RemoveAllSnapshots_Task,
) soap.HasFault {
	body := t.VirtualMachine.RemoveAllSnapshotsTask(ctx, req).(*methods.RemoveAllSnapshots_TaskBody)
	ctx.Map.Get(body.Res.Returnval).(*simulator.Task).Wait()
	return orFault(body, t.center.withLocked(t.VirtualMachine, t.center.reconcile))
}

// QueryChangedDiskAreas answers as a vCenter does, a page at a time.
func (t *trackedMachine) QueryChangedDiskAreas(
	_ *simulator.Context,
	req *types.QueryChangedDiskAreas,
) soap.HasFault {
	body := &methods.QueryChangedDiskAreasBody{}
	err := t.center.withLocked(t.VirtualMachine, func(_ *simulator.VirtualMachine, known *disks) error {
		info, fault := t.center.changedAreas(known, req)
		if fault != nil {
			body.Fault_ = simulator.Fault("", fault)
		} else {
			body.Res = &types.QueryChangedDiskAreasResponse{Returnval: *info}
		}
		return nil
	})
	return orFault(body, err)
}

func (c *center) changedAreas(
	known *disks,
	req *types.QueryChangedDiskAreas,
) (*types.DiskChangeInfo, types.BaseMethodFault) {
	if req.Snapshot == nil {
		return nil, &types.NotSupported{}
	}
	var of *snapshot
	for i := range known.snapshots {
		if known.snapshots[i].object == *req.Snapshot {
			of = &known.snapshots[i]
		}
	}
	if of == nil {
		return nil, &types.ManagedObjectNotFound{Obj: *req.Snapshot}
	}
	var device *types.VirtualDisk
	frozen := c.model.Map().Get(of.object).(*simulator.VirtualMachineSnapshot)
	for _, disk := range virtualDisks(frozen.Config.Hardware.Device) {
		if disk.Key == req.DeviceKey {
			device = disk
		}
	}
	if device == nil {
		return nil, &types.InvalidArgument{InvalidProperty: "deviceKey"}
	}
	if req.StartOffset < 0 || req.StartOffset >= device.CapacityInBytes {
		return nil, &types.InvalidArgument{InvalidProperty: "startOffset"}
	}
	backing := device.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
	d, there := known.byKey[device.Key]
	if !there || backing.ChangeId == "" {
		return nil, &types.FileFault{File: backing.FileName}
	}
	changed, err := of.allocated[device.Key], error(nil)
	if req.ChangeId != "*" {
		changed, err = d.changed(req.ChangeId, backing.ChangeId)
	}
	if errors.Is(err, errMalformed) {
		return nil, &types.InvalidArgument{InvalidProperty: "changeId"}
	} else if err != nil {
		return nil, &types.FileFault{File: backing.FileName}
	}
	return c.pageOf(changed, req.StartOffset, device.CapacityInBytes), nil
}

// pageOf returns what was changed from an offset on, as far as one answer reaches.
func (c *center) pageOf(changed []extent, start, capacity int64) *types.DiskChangeInfo {
	info := &types.DiskChangeInfo{StartOffset: start, Length: capacity - start}
	for _, e := range normalised(changed, capacity, c.granularity) {
		if e.end <= start {
			continue
		}
		if len(info.ChangedArea) == c.page {
			last := info.ChangedArea[c.page-1]
			info.Length = last.Start + last.Length - start
			break
		}
		from := max(e.start, start)
		info.ChangedArea = append(info.ChangedArea, types.DiskChangeExtent{Start: from, Length: e.end - from})
	}
	return info
}

// trackedSnapshot is a snapshot whose removal consolidates.
type trackedSnapshot struct {
	*simulator.VirtualMachineSnapshot
	center *center
}

// RemoveSnapshotTask consolidates.
func (t *trackedSnapshot) RemoveSnapshotTask(ctx *simulator.Context, req *types.RemoveSnapshot_Task) soap.HasFault {
	body := t.VirtualMachineSnapshot.RemoveSnapshotTask(ctx, req).(*methods.RemoveSnapshot_TaskBody)
	ctx.Map.Get(body.Res.Returnval).(*simulator.Task).Wait()
	return orFault(body, t.center.with(t.Vm, t.center.reconcile))
}

// orFault turns what is wrong with this program into what is wrong with the vCenter.
func orFault(body soap.HasFault, err error) soap.HasFault {
	if err == nil {
		return body
	}
	fault := simulator.Fault(err.Error(), &types.SystemError{Reason: err.Error()})
	return &methods.QueryChangedDiskAreasBody{Fault_: fault}
}

// sessions returns the cookies of all that are logged in.
func (c *center) sessions() []string {
	session := c.model.Service.Context.Session
	manager := session.Get(*c.model.ServiceContent.SessionManager).(*simulator.SessionManager)
	var keys []string
	for _, each := range manager.SessionList {
		keys = append(keys, each.Key)
	}
	return keys
}

func (c *center) hasSession(key string) bool {
	ctx := c.model.Service.Context
	req := &types.SessionIsActive{SessionID: key, UserName: c.user}
	body := ctx.Map.SessionManager().SessionIsActive(ctx, req).(*methods.SessionIsActiveBody)
	return body.Res != nil && body.Res.Returnval
}

// endSessions ends all, as when they were idle for too long, and returns how many.
func (c *center) endSessions() (int, error) {
	client, err := c.client(context.Background())
	if err != nil {
		return 0, err
	}
	keys := c.sessions()
	manager := *client.ServiceContent.SessionManager
	if len(keys) > 0 {
		req := &types.TerminateSession{This: manager, SessionId: keys}
		if _, err := methods.TerminateSession(context.Background(), client, req); err != nil {
			return 0, err
		}
	}
	return len(keys), nil
}
