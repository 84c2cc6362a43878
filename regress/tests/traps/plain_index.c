/*
 * An index method such as extensions bring: it fills pages in shared buffers without log and logs the whole index when it is built.
 * Scans look at every entry. plain.forget_to_log makes it one with a bug. smuggle() puts a row on a new page of a table and logs
 * nothing, as no extension may.
 */
#include "postgres.h"

#include "access/amapi.h"
#include "access/relscan.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xloginsert.h"
#include "catalog/index.h"
#include "commands/vacuum.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/execnodes.h"
#include "nodes/tidbitmap.h"
#include "storage/bufmgr.h"
#include "utils/guc.h"
#include "utils/rel.h"
#include "utils/selfuncs.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(plain_handler);
PG_FUNCTION_INFO_V1(smuggle);

#define ENTRIES_MAX 64

typedef struct Entry
{
	int32		key;
	ItemPointerData row;
} Entry;

typedef struct Entries
{
	uint32		count;
	Entry		entry[ENTRIES_MAX];
} Entries;

static bool forget_to_log = false;

void
_PG_init(void)
{
	DefineCustomBoolVariable("plain.forget_to_log", "Leaves a new index out of the log.", NULL, &forget_to_log,
							 false, PGC_USERSET, 0, NULL, NULL, NULL);
}

static Entries *
entries_of(Page page)
{
	return (Entries *) PageGetContents(page);
}

/* The last page, with room for an entry, locked. */
static Buffer
page_with_room(Relation index)
{
	BlockNumber blocks = RelationGetNumberOfBlocks(index);
	Buffer		buffer;
	Page		page;

	if (blocks > 0)
	{
		buffer = ReadBuffer(index, blocks - 1);
		LockBuffer(buffer, BUFFER_LOCK_EXCLUSIVE);
		page = BufferGetPage(buffer);
		if (!PageIsNew(page) && entries_of(page)->count < ENTRIES_MAX)
			return buffer;
		UnlockReleaseBuffer(buffer);
	}
	buffer = ExtendBufferedRel(BMR_REL(index), MAIN_FORKNUM, NULL, EB_LOCK_FIRST);
	page = BufferGetPage(buffer);
	PageInit(page, BLCKSZ, 8);
	((PageHeader) page)->pd_lower += sizeof(Entries);
	return buffer;
}

static void
add(Relation index, int32 key, ItemPointer row, bool logged)
{
	Buffer		buffer = page_with_room(index);
	Entries    *entries;

	START_CRIT_SECTION();
	entries = entries_of(BufferGetPage(buffer));
	entries->entry[entries->count].key = key;
	entries->entry[entries->count].row = *row;
	entries->count++;
	MarkBufferDirty(buffer);
	if (logged)
		log_newpage_buffer(buffer, true);
	END_CRIT_SECTION();
	UnlockReleaseBuffer(buffer);
}

static void
add_built(Relation index, ItemPointer row, Datum *values, bool *isnull, bool alive, void *state)
{
	if (!isnull[0])
		add(index, DatumGetInt32(values[0]), row, false);
	++*(double *) state;
}

static IndexBuildResult *
build(Relation heap, Relation index, IndexInfo *info)
{
	IndexBuildResult *result = palloc0(sizeof(IndexBuildResult));

	result->heap_tuples =
		table_index_build_scan(heap, index, info, true, false, add_built, &result->index_tuples, NULL);
	if (RelationNeedsWAL(index) && !forget_to_log)
		log_newpage_range(index, MAIN_FORKNUM, 0, RelationGetNumberOfBlocks(index), true);
	return result;
}

static void
build_empty(Relation index)
{
}

static bool
insert(Relation index, Datum *values, bool *isnull, ItemPointer row, Relation heap, IndexUniqueCheck unique,
	   bool unchanged, IndexInfo *info)
{
	if (!isnull[0])
		add(index, DatumGetInt32(values[0]), row, RelationNeedsWAL(index));
	return false;
}

static IndexBulkDeleteResult *
bulk_delete(IndexVacuumInfo *info, IndexBulkDeleteResult *stats, IndexBulkDeleteCallback callback, void *state)
{
	elog(ERROR, "this index is not vacuumed");
}

static IndexBulkDeleteResult *
vacuum_cleanup(IndexVacuumInfo *info, IndexBulkDeleteResult *stats)
{
	return stats;
}

static void
estimate(struct PlannerInfo *root, struct IndexPath *path, double loops, Cost *startup, Cost *total,
		 Selectivity *selectivity, double *correlation, double *pages)
{
	*startup = *total = *correlation = 0;
	*selectivity = 0.001;
	*pages = 1;
}

static bytea *
options(Datum given, bool validate)
{
	return NULL;
}

static bool
validate(Oid opclass)
{
	return true;
}

static IndexScanDesc
begin_scan(Relation index, int keys, int orderings)
{
	return RelationGetIndexScan(index, keys, orderings);
}

static void
rescan(IndexScanDesc scan, ScanKey keys, int count, ScanKey orderings, int ordering_count)
{
	if (keys && scan->numberOfKeys > 0)
		memmove(scan->keyData, keys, scan->numberOfKeys * sizeof(ScanKeyData));
}

static int64
get_bitmap(IndexScanDesc scan, TIDBitmap *bitmap)
{
	Relation	index = scan->indexRelation;
	int32		wanted = DatumGetInt32(scan->keyData[0].sk_argument);
	BlockNumber blocks = RelationGetNumberOfBlocks(index);
	int64		found = 0;

	for (BlockNumber block = 0; block < blocks; block++)
	{
		Buffer		buffer = ReadBuffer(index, block);
		Page		page = BufferGetPage(buffer);

		CHECK_FOR_INTERRUPTS();
		LockBuffer(buffer, BUFFER_LOCK_SHARE);
		if (!PageIsNew(page))
		{
			Entries    *entries = entries_of(page);

			for (uint32 i = 0; i < entries->count; i++)
				if (entries->entry[i].key == wanted)
				{
					tbm_add_tuples(bitmap, &entries->entry[i].row, 1, false);
					found++;
				}
		}
		UnlockReleaseBuffer(buffer);
	}
	return found;
}

static void
end_scan(IndexScanDesc scan)
{
}

Datum
plain_handler(PG_FUNCTION_ARGS)
{
	IndexAmRoutine *method = makeNode(IndexAmRoutine);

	method->amstrategies = 1;
	method->ambuild = build;
	method->ambuildempty = build_empty;
	method->aminsert = insert;
	method->ambulkdelete = bulk_delete;
	method->amvacuumcleanup = vacuum_cleanup;
	method->amcostestimate = estimate;
	method->amoptions = options;
	method->amvalidate = validate;
	method->ambeginscan = begin_scan;
	method->amrescan = rescan;
	method->amgetbitmap = get_bitmap;
	method->amendscan = end_scan;
	PG_RETURN_POINTER(method);
}

/* A copy of the table's first row on a page of its own, without log. */
Datum
smuggle(PG_FUNCTION_ARGS)
{
	Relation	table = table_open(PG_GETARG_OID(0), RowExclusiveLock);
	Buffer		from = ReadBuffer(table, 0);
	Buffer		to = ExtendBufferedRel(BMR_REL(table), MAIN_FORKNUM, NULL, EB_LOCK_FIRST);
	Page		page = BufferGetPage(to);
	ItemId		line;

	LockBuffer(from, BUFFER_LOCK_SHARE);
	line = PageGetItemId(BufferGetPage(from), FirstOffsetNumber);
	PageInit(page, BLCKSZ, 0);
	PageAddItem(page, PageGetItem(BufferGetPage(from), line), ItemIdGetLength(line), FirstOffsetNumber, false, true);
	ItemPointerSet(&((HeapTupleHeader) PageGetItem(page, PageGetItemId(page, FirstOffsetNumber)))->t_ctid,
				   BufferGetBlockNumber(to), FirstOffsetNumber);
	MarkBufferDirty(to);
	UnlockReleaseBuffer(to);
	UnlockReleaseBuffer(from);
	table_close(table, RowExclusiveLock);
	PG_RETURN_VOID();
}
