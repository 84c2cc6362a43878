//! Settings of the pageserver; the shell adds those that every daemon has (id, cluster, listen, http, dir, log).

strata_daemon::daemon_config! {
    /// Settings of `strata-pageserver`.
    pub struct Config, env "STRATA_PAGESERVER" {
        /// Object store: a local directory. Layers and indexes live there; `dir` is only a cache of them.
        object_store: String, Text;
        /// Safekeepers that the log comes from: id=host:port, or host:port.
        safekeepers: Vec<String>, TextList = "";
        /// Generation of this process's attachments; must grow from start to start.
        generation: u32, Integer;
        /// Materialised pages kept in memory, MiB.
        page_cache_mib: u64, Integer = "512";
        /// Blocks of layer files kept in memory, MiB.
        block_cache_mib: u64, Integer = "128";
        /// Log values in memory before a layer is written, MiB per timeline.
        layer_mib: u64, Integer = "64";
        /// Values in memory are written out at the latest after this many seconds, a trickle after ten times as many.
        layer_age_s_max: u64, Integer = "60";
        /// Threads that answer page requests; 0 means one per core.
        page_threads: usize, Integer = "0";
    }
}
