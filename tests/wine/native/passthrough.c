/*
 * A driver for Wine: \\.\Tape0, \\.\Tape1 and \\.\Changer0, which answer IOCTL_SCSI_PASS_THROUGH_DIRECT as the port
 * driver of Windows does, and have the commands carried out by whoever listens on \\.\pipe\capstan-Tape0 and so on.
 *
 * A message to the pipe: struct request, then the data that goes out. The answer: struct answer, the sense data, the
 * data that came in. A `failure` other than 0 is the NTSTATUS of a request that got no answer from the device.
 */
#include <ntifs.h>
#include <ntddscsi.h>
#include <ntddstor.h>

#define MAX_TRANSFER (1u << 20)
#define MAX_SENSE 255

#pragma pack(push, 1)
struct request { UCHAR cdb_length, data_in; ULONG data_length, timeout; UCHAR cdb[16]; };
struct answer { ULONG failure; UCHAR scsi_status, sense_length; ULONG moved; };
#pragma pack(pop)

struct unit { const WCHAR *name; FILE_OBJECT *owner; HANDLE pipe; UCHAR *buffer; };

static const WCHAR *const names[] = { L"Tape0", L"Tape1", L"Changer0" };
static const WCHAR *const interfaces[] = {
    L"ROOT#CAPSTAN#0000#{53f5630b-b6bf-11d0-94f2-00a0c91efb8b}",
    L"ROOT#CAPSTAN#0001#{53f5630b-b6bf-11d0-94f2-00a0c91efb8b}",
    L"ROOT#CAPSTAN#0002#{53f56310-b6bf-11d0-94f2-00a0c91efb8b}",
};

NTSTATUS NTAPI NtReadVirtualMemory(HANDLE process, const void *from, void *to, SIZE_T size, SIZE_T *moved);
NTSTATUS NTAPI NtWriteVirtualMemory(HANDLE process, void *to, const void *from, SIZE_T size, SIZE_T *moved);
NTSYSAPI HANDLE NTAPI PsGetProcessId(PEPROCESS process);

static NTSTATUS complete(PIRP irp, NTSTATUS status, ULONG_PTR size)
{
    irp->IoStatus.Status = status;
    irp->IoStatus.Information = NT_SUCCESS(status) ? size : 0;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return status;
}

static void named(UNICODE_STRING *into, WCHAR *space, const WCHAR *folder, const WCHAR *name)
{
    WCHAR *end = space;
    while (*folder) *end++ = *folder++;
    while (*name) *end++ = *name++;
    *end = 0;
    RtlInitUnicodeString(into, space);
}

/* Copy between the memory of the process that asked and ours: Wine's drivers live in a process of their own. */
static NTSTATUS copy_user(PIRP irp, void *user, void *own, SIZE_T size, BOOLEAN to_user)
{
    OBJECT_ATTRIBUTES attributes;
    CLIENT_ID client = { 0 };
    HANDLE process;
    SIZE_T moved;
    NTSTATUS status;

    if (!size) return STATUS_SUCCESS;
    InitializeObjectAttributes(&attributes, NULL, 0, NULL, NULL);
    client.UniqueProcess = PsGetProcessId(IoGetRequestorProcess(irp));
    if ((status = ZwOpenProcess(&process, 0x1F0FFF, &attributes, &client))) return status;
    status = to_user ? NtWriteVirtualMemory(process, user, own, size, &moved)
                     : NtReadVirtualMemory(process, user, own, size, &moved);
    ZwClose(process);
    return status;
}

static NTSTATUS NTAPI create(PDEVICE_OBJECT device, PIRP irp)
{
    struct unit *unit = device->DeviceExtension;
    OBJECT_ATTRIBUTES attributes;
    IO_STATUS_BLOCK io;
    UNICODE_STRING path;
    WCHAR space[64];
    NTSTATUS status;

    /* Wine gives out a handle all the same; what is asked through it is refused below. */
    if (unit->owner) return complete(irp, STATUS_SHARING_VIOLATION, 0);
    named(&path, space, L"\\??\\pipe\\capstan-", unit->name);
    InitializeObjectAttributes(&attributes, &path, OBJ_CASE_INSENSITIVE, NULL, NULL);
    status = ZwCreateFile(&unit->pipe, GENERIC_READ | GENERIC_WRITE | SYNCHRONIZE, &attributes, &io, NULL, 0, 0,
                          FILE_OPEN, FILE_SYNCHRONOUS_IO_NONALERT, NULL, 0);
    if (!status)
    {
        unit->owner = IoGetCurrentIrpStackLocation(irp)->FileObject;
        FILE_PIPE_INFORMATION mode = { FILE_PIPE_MESSAGE_MODE, FILE_PIPE_QUEUE_OPERATION };
        status = ZwSetInformationFile(unit->pipe, &io, &mode, sizeof(mode), FilePipeInformation);
    }
    return complete(irp, status, 0);
}

static NTSTATUS NTAPI close(PDEVICE_OBJECT device, PIRP irp)
{
    struct unit *unit = device->DeviceExtension;
    if (unit->owner && unit->owner == IoGetCurrentIrpStackLocation(irp)->FileObject)
    {
        ZwClose(unit->pipe);
        unit->owner = NULL;
    }
    return complete(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS ask(struct unit *unit, ULONG size)
{
    IO_STATUS_BLOCK io;
    NTSTATUS status = ZwWriteFile(unit->pipe, NULL, NULL, NULL, &io, unit->buffer, size, NULL, NULL);
    if (status) return status;
    status = ZwReadFile(unit->pipe, NULL, NULL, NULL, &io, unit->buffer,
                        sizeof(struct answer) + MAX_SENSE + MAX_TRANSFER, NULL, NULL);
    if (!status && io.Information < sizeof(struct answer)) status = STATUS_IO_DEVICE_ERROR;
    return status;
}

static NTSTATUS pass_through(struct unit *unit, PIRP irp, SCSI_PASS_THROUGH_DIRECT *block, ULONG given, ULONG room)
{
    struct request *request = (struct request *)unit->buffer;
    struct answer *answer = (struct answer *)unit->buffer;
    UCHAR *behind = unit->buffer + sizeof(struct request);
    ULONG out = block->DataIn == SCSI_IOCTL_DATA_OUT ? block->DataTransferLength : 0, sense;
    NTSTATUS status;

    if (given < sizeof(*block) || room < sizeof(*block)) return STATUS_BUFFER_TOO_SMALL;
    if (block->Length != sizeof(*block)) return STATUS_REVISION_MISMATCH;
    if (block->CdbLength < 6 || block->CdbLength > 16 || block->DataTransferLength > MAX_TRANSFER ||
        ((ULONG_PTR)block->DataBuffer & 3) || (block->SenseInfoLength &&
        (block->SenseInfoOffset < sizeof(*block) || block->SenseInfoOffset + block->SenseInfoLength > given)))
        return STATUS_INVALID_PARAMETER;
    request->cdb_length = block->CdbLength;
    request->data_in = block->DataIn;
    request->data_length = block->DataTransferLength;
    request->timeout = block->TimeOutValue;
    RtlCopyMemory(request->cdb, block->Cdb, 16);
    if ((status = copy_user(irp, block->DataBuffer, behind, out, FALSE))) return status;
    if ((status = ask(unit, sizeof(*request) + out))) return status;
    if (answer->failure) return answer->failure;
    behind = unit->buffer + sizeof(*answer);
    sense = answer->sense_length < block->SenseInfoLength ? answer->sense_length : block->SenseInfoLength;
    RtlCopyMemory((UCHAR *)block + block->SenseInfoOffset, behind, sense);
    block->SenseInfoLength = (UCHAR)sense;
    block->ScsiStatus = answer->scsi_status;
    block->DataTransferLength = answer->moved;
    if (block->DataIn == SCSI_IOCTL_DATA_IN)
        return copy_user(irp, block->DataBuffer, behind + answer->sense_length, answer->moved, TRUE);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI control(PDEVICE_OBJECT device, PIRP irp)
{
    struct unit *unit = device->DeviceExtension;
    IO_STACK_LOCATION *stack = IoGetCurrentIrpStackLocation(irp);
    ULONG given = stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG room = stack->Parameters.DeviceIoControl.OutputBufferLength;
    void *buffer = irp->AssociatedIrp.SystemBuffer;

    switch (stack->Parameters.DeviceIoControl.IoControlCode)
    {
    case IOCTL_SCSI_PASS_THROUGH_DIRECT:
        if (unit->owner != stack->FileObject) return complete(irp, STATUS_ACCESS_DENIED, 0);
        return complete(irp, pass_through(unit, irp, buffer, given, room), given < room ? given : room);
    case IOCTL_STORAGE_QUERY_PROPERTY:
    {
        STORAGE_ADAPTER_DESCRIPTOR *answer = buffer;
        if (given < sizeof(STORAGE_PROPERTY_QUERY) || ((STORAGE_PROPERTY_QUERY *)buffer)->PropertyId != StorageAdapterProperty)
            return complete(irp, STATUS_INVALID_PARAMETER, 0);
        if (room < sizeof(*answer)) return complete(irp, STATUS_BUFFER_TOO_SMALL, 0);
        RtlZeroMemory(answer, sizeof(*answer));
        answer->Version = answer->Size = sizeof(*answer);
        answer->MaximumTransferLength = MAX_TRANSFER;
        answer->MaximumPhysicalPages = 257;
        answer->AlignmentMask = 3;
        return complete(irp, STATUS_SUCCESS, sizeof(*answer));
    }
    case IOCTL_STORAGE_GET_DEVICE_NUMBER:
    {
        STORAGE_DEVICE_NUMBER *answer = buffer;
        if (room < sizeof(*answer)) return complete(irp, STATUS_BUFFER_TOO_SMALL, 0);
        answer->DeviceType = device->DeviceType;
        answer->DeviceNumber = unit->name[0] == 'T' ? unit->name[4] - '0' : 0;
        answer->PartitionNumber = (ULONG)-1;
        return complete(irp, STATUS_SUCCESS, sizeof(*answer));
    }
    }
    return complete(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING registry)
{
    /* A module that takes something from ntdll is none of the kernel to Wine, which first calls its entry as that of a
       library: the second argument is DLL_PROCESS_ATTACH then, and what is returned is TRUE. */
    if ((ULONG_PTR)registry < 0x10000) return 1;
    driver->MajorFunction[IRP_MJ_CREATE] = create;
    driver->MajorFunction[IRP_MJ_CLOSE] = close;
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = control;
    for (ULONG number = 0; number < sizeof(names) / sizeof(*names); number++)
    {
        UNICODE_STRING path, link;
        WCHAR path_space[64], link_space[128];
        PDEVICE_OBJECT device;
        struct unit *unit;
        NTSTATUS status;
        ULONG kind = names[number][0] == 'T' ? FILE_DEVICE_TAPE : FILE_DEVICE_CHANGER;

        named(&path, path_space, L"\\Device\\", names[number]);
        named(&link, link_space, L"\\DosDevices\\", names[number]);
        if ((status = IoCreateDevice(driver, sizeof(*unit), &path, kind, 0, FALSE, &device))) return status;
        unit = device->DeviceExtension;
        unit->name = names[number];
        unit->owner = NULL;
        unit->buffer = ExAllocatePoolWithTag(NonPagedPool, sizeof(struct request) + MAX_SENSE + MAX_TRANSFER, 0);
        if (!unit->buffer) return STATUS_NO_MEMORY;
        if ((status = IoCreateSymbolicLink(&link, &path))) return status;
        named(&link, link_space, L"\\DosDevices\\", interfaces[number]);
        if ((status = IoCreateSymbolicLink(&link, &path))) return status;
    }
    return STATUS_SUCCESS;
}
