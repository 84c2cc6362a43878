//! Finds the index scan of a running plan that is reading a block, and what its reader wants of it.
//!
//! Nodes by their tags, from `src/include/nodes/execnodes.h`. Only memory of a plan that runs is read (`running`), and nothing of it is
//! changed. A scan is taken for the reader of a block if its table has this locator and the row that it is fetching is in this block.

use pgrx::pg_sys;
use pgrx::pg_sys::{NodeTag, PlanState};
use strata_common::RelTag;

use super::btree::Position;
use super::running::Frame;

/// Nodes that are looked at for one block; plans of very many partitions are passed over.
const NODES_MAX: usize = 500;

/// An index scan of a running plan.
#[derive(Clone, Copy)]
pub struct Found {
    pub node: *mut PlanState,
    wants: Wants,
}

/// How many rows the reader of a node wants.
#[derive(Clone, Copy)]
enum Wants {
    /// Not known.
    Any,
    /// What the caller of the executor wants.
    Caller,
    /// One: of a join that looks for a single match.
    One,
    /// What a LIMIT above lacks.
    Limit(*mut pg_sys::LimitState),
}

/// What an index scan has open.
pub struct Scan {
    pub description: *mut pg_sys::IndexScanDescData,
    pub is_backward: bool,
    /// Pages whose rows all can see need no look.
    pub is_index_only: bool,
}

/// The scan in `frame` that is fetching a row of this block, and where it is.
///
/// # Safety
/// `frame` is of a run that is under way.
pub unsafe fn find(frame: &Frame, table: RelTag, block: u32) -> Option<(Found, Scan, Position)> {
    // SAFETY: the plan runs, so its nodes are there.
    unsafe {
        let here = |found: Found| {
            let scan = scan_of(found.node)?;
            let position = Position::of(scan.description, scan.is_backward)?;
            let heap = (*scan.description).heapRelation;
            let is_reader = !heap.is_null() && is_at(heap, table) && position.here()?.block == block;
            is_reader.then_some((found, scan, position))
        };
        if let Some(found) = frame.found.get().and_then(here) {
            return Some(found);
        }
        let mut left = vec![Found { node: (*frame.query).planstate, wants: Wants::Caller }];
        for _ in 0..NODES_MAX {
            let next = left.pop()?;
            if next.node.is_null() {
                continue;
            }
            if let Some(found) = here(next) {
                frame.found.set(Some(next));
                return Some(found);
            }
            add_children(&mut left, next);
        }
        None
    }
}

unsafe fn is_at(relation: pg_sys::Relation, tag: RelTag) -> bool {
    // SAFETY: the caller's relation is open.
    let locator = unsafe { (*relation).rd_locator };
    let found = RelTag {
        tablespace: locator.spcOid.to_u32(),
        database: locator.dbOid.to_u32(),
        relation: locator.relNumber.to_u32(),
    };
    found == tag
}

unsafe fn scan_of(node: *mut PlanState) -> Option<Scan> {
    // SAFETY: the tag says what the node is.
    unsafe {
        let (description, order, is_index_only) = match (*node).type_ {
            NodeTag::T_IndexScanState => {
                let plan = (*node).plan.cast::<pg_sys::IndexScan>();
                ((*node.cast::<pg_sys::IndexScanState>()).iss_ScanDesc, (*plan).indexorderdir, false)
            }
            NodeTag::T_IndexOnlyScanState => {
                let plan = (*node).plan.cast::<pg_sys::IndexOnlyScan>();
                ((*node.cast::<pg_sys::IndexOnlyScanState>()).ioss_ScanDesc, (*plan).indexorderdir, true)
            }
            _ => return None,
        };
        // As both scans combine them.
        let direction = order * (*(*node).state).es_direction;
        (!description.is_null()).then_some(Scan { description, is_backward: direction < 0, is_index_only })
    }
}

/// Nodes that give at most one row for each of their child's want at least as many rows of it as are wanted of them.
unsafe fn add_children(left: &mut Vec<Found>, parent: Found) {
    let Found { node, wants } = parent;
    let add = |left: &mut Vec<Found>, node, wants| left.push(Found { node, wants });
    // SAFETY: the tag says what the node is; arrays are as long as they say, and lists are the server's.
    unsafe {
        match (*node).type_ {
            NodeTag::T_LimitState => add(left, (*node).lefttree, Wants::Limit(node.cast())),
            NodeTag::T_ResultState | NodeTag::T_LockRowsState | NodeTag::T_UniqueState => {
                add(left, (*node).lefttree, wants);
            }
            NodeTag::T_NestLoopState => {
                let join = node.cast::<pg_sys::JoinState>();
                let single = (*join).single_match || (*join).jointype == pg_sys::JoinType::JOIN_ANTI;
                add(left, (*node).lefttree, if single { wants } else { Wants::Any });
                add(left, (*node).righttree, if single { Wants::One } else { Wants::Any });
            }
            NodeTag::T_AppendState => {
                let append = node.cast::<pg_sys::AppendState>();
                let count = usize::try_from((*append).as_nplans).unwrap_or(0).min(NODES_MAX);
                (0..count).for_each(|index| add(left, *(*append).appendplans.add(index), wants));
            }
            NodeTag::T_MergeAppendState => {
                let append = node.cast::<pg_sys::MergeAppendState>();
                let count = usize::try_from((*append).ms_nplans).unwrap_or(0).min(NODES_MAX);
                (0..count).for_each(|index| add(left, *(*append).mergeplans.add(index), Wants::Any));
            }
            NodeTag::T_SubqueryScanState => {
                add(left, (*node.cast::<pg_sys::SubqueryScanState>()).subplan, wants);
            }
            _ => {
                add(left, (*node).lefttree, Wants::Any);
                add(left, (*node).righttree, Wants::Any);
            }
        }
        for list in [(*node).initPlan, (*node).subPlan] {
            if list.is_null() {
                continue;
            }
            let count = usize::try_from((*list).length).unwrap_or(0).min(NODES_MAX);
            for index in 0..count {
                let sub = (*(*list).elements.add(index)).ptr_value.cast::<pg_sys::SubPlanState>();
                if !sub.is_null() && (*sub).type_ == NodeTag::T_SubPlanState {
                    add(left, (*sub).planstate, Wants::Any);
                }
            }
        }
    }
}

impl Found {
    /// Rows that the reader will ask this scan for at least, beside the one that is being read; `None` if that is not known.
    ///
    /// # Safety
    /// Found in this frame.
    pub unsafe fn reach(&self, frame: &Frame) -> Option<u64> {
        let rows = match self.wants {
            Wants::Any => return None,
            Wants::One => 1,
            // SAFETY: the plan runs.
            Wants::Caller => unsafe {
                // Who fetches again and again goes on.
                if frame.count == 0
                    || frame.is_continued
                    || (*frame.query).operation != pg_sys::CmdType::CMD_SELECT
                {
                    return None;
                }
                frame.count.saturating_sub((*(*frame.query).estate).es_processed)
            },
            // SAFETY: as above.
            Wants::Limit(limit) => unsafe {
                if (*limit).noCount || (*limit).lstate == pg_sys::LimitStateCond::LIMIT_INITIAL {
                    return None;
                }
                let all = (*limit).offset.saturating_add((*limit).count);
                u64::try_from(all.saturating_sub((*limit).position)).unwrap_or(0)
            },
        };
        Some(rows.saturating_sub(1))
    }
}
