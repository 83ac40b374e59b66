/* A resource manager of an extension's own, for the test beside it: its record flips the last byte of a block. */
#include "postgres.h"

#include "access/relation.h"
#include "access/rmgr.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xloginsert.h"
#include "access/xlogutils.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/pg_lsn.h"
#include "utils/rel.h"

PG_MODULE_MAGIC;

#define RMID RM_EXPERIMENTAL_ID
#define INFO 0x20

static void
flip(Page page)
{
	((char *) page)[BLCKSZ - 1] ^= 1;
}

static void
redo(XLogReaderState *record)
{
	Buffer		buffer;

	if (XLogReadBufferForRedo(record, 0, &buffer) == BLK_NEEDS_REDO)
	{
		flip(BufferGetPage(buffer));
		PageSetLSN(BufferGetPage(buffer), record->EndRecPtr);
		MarkBufferDirty(buffer);
	}
	if (BufferIsValid(buffer))
		UnlockReleaseBuffer(buffer);
}

static void
desc(StringInfo buf, XLogReaderState *record)
{
}

static const char *
identify(uint8 info)
{
	return "FLIP";
}

static RmgrData rmgr = {.rm_name = "flipper", .rm_redo = redo, .rm_desc = desc, .rm_identify = identify};

void		_PG_init(void);

void
_PG_init(void)
{
	RegisterCustomRmgr(RMID, &rmgr);
}

PG_FUNCTION_INFO_V1(flip_block);

/* flip_block(relation regclass, block int, image bool) returns the start of the record. */
Datum
flip_block(PG_FUNCTION_ARGS)
{
	Relation	relation = relation_open(PG_GETARG_OID(0), RowExclusiveLock);
	Buffer		buffer = ReadBuffer(relation, PG_GETARG_INT32(1));
	char		told[] = "flipped";
	XLogRecPtr	end;

	LockBuffer(buffer, BUFFER_LOCK_EXCLUSIVE);
	START_CRIT_SECTION();
	flip(BufferGetPage(buffer));
	MarkBufferDirty(buffer);
	XLogBeginInsert();
	XLogRegisterBuffer(0, buffer, REGBUF_STANDARD | (PG_GETARG_BOOL(2) ? REGBUF_FORCE_IMAGE : REGBUF_NO_IMAGE));
	XLogRegisterData(told, sizeof(told));
	end = XLogInsert(RMID, INFO);
	PageSetLSN(BufferGetPage(buffer), end);
	END_CRIT_SECTION();
	UnlockReleaseBuffer(buffer);
	relation_close(relation, RowExclusiveLock);
	PG_RETURN_LSN(ProcLastRecPtr);
}
