/*
 * cut_and_add() cuts a table to nothing as RelationTruncate does, but for one thing that another process may do at any time: between
 * the record and the drop of the buffers it writes the table's dirty pages. Then it adds as many blocks again, as a bulk insertion does
 * in advance. It returns how many bytes were logged between the two, which shows whether the scenario was the wanted one.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/xlog.h"
#include "access/xloginsert.h"
#include "catalog/storage.h"
#include "catalog/storage_xlog.h"
#include "fmgr.h"
#include "storage/bufmgr.h"
#include "storage/smgr.h"
#include "utils/rel.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(cut_and_add);

#define BLOCKS_MAX 32

Datum
cut_and_add(PG_FUNCTION_ARGS)
{
	Relation	rel = relation_open(PG_GETARG_OID(0), AccessExclusiveLock);
	BlockNumber old_blocks = RelationGetNumberOfBlocks(rel);
	ForkNumber	fork = MAIN_FORKNUM;
	BlockNumber blocks = 0;
	Buffer		buffers[BLOCKS_MAX];
	uint32		added = 0;
	xl_smgr_truncate record = {0};
	XLogRecPtr	cut;
	XLogRecPtr	end;

	/* Every page is dirty, whoever wrote it before. */
	for (BlockNumber block = 0; block < old_blocks; block++)
	{
		Buffer		buffer = ReadBuffer(rel, block);

		LockBuffer(buffer, BUFFER_LOCK_EXCLUSIVE);
		MarkBufferDirty(buffer);
		UnlockReleaseBuffer(buffer);
	}

	record.blkno = 0;
	record.rlocator = rel->rd_locator;
	record.flags = SMGR_TRUNCATE_HEAP;
	XLogBeginInsert();
	XLogRegisterData((char *) &record, sizeof(record));
	cut = XLogInsert(RM_SMGR_ID, XLOG_SMGR_TRUNCATE | XLR_SPECIAL_REL_UPDATE);
	XLogFlush(cut);
	FlushRelationBuffers(rel);
	smgrtruncate2(RelationGetSmgr(rel), &fork, 1, &old_blocks, &blocks);

	ExtendBufferedRelBy(BMR_REL(rel), MAIN_FORKNUM, NULL, 0, Min(old_blocks, BLOCKS_MAX), buffers, &added);
	end = GetXLogInsertRecPtr();
	while (added > 0)
		ReleaseBuffer(buffers[--added]);
	relation_close(rel, NoLock);
	PG_RETURN_INT64((int64) (end - cut));
}
