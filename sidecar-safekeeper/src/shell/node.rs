//! All timelines of this safekeeper: opened from the data folder at start, created and deleted by explicit calls.
//!
//! A folder `<tenant>/<timeline>` exists under its name only when it is whole; one that is being made or deleted has an
//! ending that tells, and is removed at the next start. A timeline that cannot be opened is kept as it is and refused by
//! name; the others go on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};

use strata_common::TenantTimelineId;
use strata_pgwal::SegmentBytes;
use tonic::Status;

use super::control;
use super::disk::is_full;
use super::status;
use super::timeline::{Surroundings, Timeline};
use crate::core::DurableState;

const CREATING_SUFFIX: &str = ".creating";
const DELETING_SUFFIX: &str = ".deleting";

#[derive(Clone)]
enum Slot {
    Open(Arc<Timeline>),
    /// Could not be opened; why.
    Refused(String),
}

/// One timeline as `list` shows it.
pub enum Listed {
    Open(Arc<Timeline>),
    Refused(TenantTimelineId, String),
}

pub struct Node {
    pub around: Surroundings,
    dir: PathBuf,
    timelines: RwLock<BTreeMap<TenantTimelineId, Slot>>,
    /// Held while a timeline is created or deleted.
    changing: Mutex<()>,
}

impl Node {
    /// Opens all timelines in `dir`. Blocks.
    ///
    /// Errors: the folder itself cannot be read or changed.
    pub fn open(around: Surroundings, dir: PathBuf) -> std::io::Result<Node> {
        let mut timelines = BTreeMap::new();
        for tenant_name in around.disk.list(&dir)? {
            let Ok(tenant) = tenant_name.parse() else { continue };
            let tenant_dir = dir.join(&tenant_name);
            for name in around.disk.list(&tenant_dir)? {
                if name.ends_with(CREATING_SUFFIX) || name.ends_with(DELETING_SUFFIX) {
                    around.disk.remove_dir_all(&tenant_dir.join(&name))?;
                    continue;
                }
                let Ok(timeline) = name.parse() else { continue };
                let id = TenantTimelineId { tenant, timeline };
                let slot = match Timeline::open(&around, &tenant_dir.join(&name), id) {
                    Ok(timeline) => Slot::Open(timeline),
                    Err(error) => {
                        tracing::error!(timeline = %id, error = %format!("{error:#}"), "timeline refused");
                        Slot::Refused(format!("{error:#}"))
                    }
                };
                timelines.insert(id, slot);
            }
        }
        Ok(Node { around, dir, timelines: RwLock::new(timelines), changing: Mutex::new(()) })
    }

    fn slot(&self, id: TenantTimelineId) -> Option<Slot> {
        self.timelines.read().expect("nothing panics while it holds the list").get(&id).cloned()
    }

    fn set_slot(&self, id: TenantTimelineId, slot: Option<Slot>) {
        let mut timelines = self.timelines.write().expect("nothing panics while it holds the list");
        match slot {
            Some(slot) => timelines.insert(id, slot),
            None => timelines.remove(&id),
        };
    }

    /// Errors: `NOT_FOUND` if it was never created here (trap K16), `DATA_LOSS` if it is damaged.
    pub fn get(&self, id: TenantTimelineId) -> Result<Arc<Timeline>, Status> {
        match self.slot(id) {
            Some(Slot::Open(timeline)) => Ok(timeline),
            Some(Slot::Refused(problem)) => {
                Err(Status::data_loss(format!("timeline {id} is refused here: {problem}")))
            }
            None => Err(status::unknown(id)),
        }
    }

    pub fn list(&self) -> Vec<Listed> {
        let timelines = self.timelines.read().expect("nothing panics while it holds the list");
        timelines
            .iter()
            .map(|(id, slot)| match slot {
                Slot::Open(timeline) => Listed::Open(timeline.clone()),
                Slot::Refused(problem) => Listed::Refused(*id, problem.clone()),
            })
            .collect()
    }

    /// Creates a timeline, durable on return; a repeated identical call succeeds. Blocks.
    pub fn create(&self, id: TenantTimelineId, state: &DurableState) -> Result<(), Status> {
        check_new(state)?;
        let _changing = self.changing.lock().expect("nothing panics while it creates a timeline");
        match self.slot(id) {
            Some(Slot::Open(existing)) => return check_same(id, &existing.snapshot().state, state),
            Some(Slot::Refused(_)) => return self.get(id).map(drop),
            None => {}
        }
        let made = self.make_folder(id, state).map_err(|error| {
            let text = format!("cannot create timeline {id}: {error}");
            if is_full(&error) { Status::resource_exhausted(text) } else { Status::internal(text) }
        });
        let dir = made?;
        let timeline = Timeline::open(&self.around, &dir, id)
            .map_err(|error| Status::internal(format!("cannot open the new timeline {id}: {error:#}")))?;
        self.set_slot(id, Some(Slot::Open(timeline.clone())));
        // An earlier try may have made it and failed to make its name durable.
        check_same(id, &timeline.snapshot().state, state)
    }

    /// Makes the folder and its name durable. One that is whole is left by an earlier try: only its name may not be durable.
    fn make_folder(&self, id: TenantTimelineId, state: &DurableState) -> std::io::Result<PathBuf> {
        let disk = &*self.around.disk;
        let tenant_dir = self.dir.join(id.tenant.to_string());
        let final_dir = tenant_dir.join(id.timeline.to_string());
        let temporary = tenant_dir.join(format!("{}{CREATING_SUFFIX}", id.timeline));
        disk.create_dir(&tenant_dir)?;
        disk.sync_dir(&self.dir)?;
        if !disk.list(&tenant_dir)?.contains(&id.timeline.to_string()) {
            disk.create_dir(&temporary)?;
            control::save(disk, &temporary, id, state)?;
            disk.rename(&temporary, &final_dir)?;
        }
        disk.sync_dir(&tenant_dir)?;
        Ok(final_dir)
    }

    /// Deletes a timeline with its log; one that is not there is deleted already. Blocks.
    pub fn delete(&self, id: TenantTimelineId) -> Result<(), Status> {
        let _changing = self.changing.lock().expect("nothing panics while it deletes a timeline");
        let Some(slot) = self.slot(id) else { return Ok(()) };
        if let Slot::Open(timeline) = slot {
            timeline.stop(&status::unknown(id));
        }
        self.set_slot(id, None);
        let tenant_dir = self.dir.join(id.tenant.to_string());
        self.remove_folder(&tenant_dir, id).map_err(|error| {
            self.set_slot(id, Some(Slot::Refused(format!("its deletion failed: {error}"))));
            Status::internal(format!("cannot delete timeline {id}: {error}"))
        })
    }

    fn remove_folder(&self, tenant_dir: &Path, id: TenantTimelineId) -> std::io::Result<()> {
        let disk = &*self.around.disk;
        let doomed = tenant_dir.join(format!("{}{DELETING_SUFFIX}", id.timeline));
        disk.rename(&tenant_dir.join(id.timeline.to_string()), &doomed)?;
        disk.sync_dir(tenant_dir)?;
        disk.remove_dir_all(&doomed)
    }

    /// Runs `work` on every open timeline.
    pub fn for_each(&self, work: impl Fn(&Timeline)) {
        for listed in self.list() {
            if let Listed::Open(timeline) = listed {
                work(&timeline);
            }
        }
    }
}

fn check_new(state: &DurableState) -> Result<(), Status> {
    SegmentBytes::new(u64::from(state.facts.wal_segment_bytes))
        .map_err(|error| Status::invalid_argument(format!("wal_segment_bytes: {error}")))?;
    if !state.start_lsn.is_valid() || !state.start_lsn.is_aligned() {
        let at = state.start_lsn;
        return Err(Status::invalid_argument(format!("start_lsn: no record ends at {at}")));
    }
    Ok(())
}

fn check_same(id: TenantTimelineId, existing: &DurableState, asked: &DurableState) -> Result<(), Status> {
    let same = existing.incarnation == asked.incarnation
        && existing.facts == asked.facts
        && existing.start_lsn == asked.start_lsn;
    if same {
        return Ok(());
    }
    let text = format!(
        "timeline {id} exists here as incarnation {}, begun at {}",
        existing.incarnation, existing.start_lsn
    );
    Err(Status::already_exists(text))
}
