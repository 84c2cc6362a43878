#!/bin/bash
# Makes the tables of docs/suites.md from the rows that the suites wrote (STRATA_SUITES_ROWS): suite, server, column (shared buffers or
# file cache), passed, explained, failed. The last run of a suite counts. usage: suites-table.sh ROWS …
set -euo pipefail
LC_ALL=C awk -F'\t' '
    function cell(suite, server, buffers,    key) {
        key = suite FS server FS buffers
        return key in came ? came[key] : "–"
    }
    {
        text = $4 + $5 + $6
        if ($5 > 0) text = text ", " $5 " explained"
        if ($6 > 0) text = text ", **" $6 " failed**"
        came[$1 FS $2 FS $3] = text
        suites[$1] = 1
    }
    function table(title, columns,    count, sizes, line, suite, s, c) {
        print title
        count = split(columns, sizes, "|")
        printf "|---|"; for (s = 1; s <= 3 * count; s++) printf "---|"; print ""
        for (suite in suites) {
            line = "| " suite " "
            for (s = 1; s <= 3; s++) for (c = 1; c <= count; c++) line = line "| " cell(suite, servers[s], sizes[c]) " "
            print line "|" | "sort"
        }
        close("sort")
    }
    END {
        split("patched vanilla debian", servers, " ")
        table("| suite | patched 320 kB | 1 MB | 128 MB | vanilla 320 kB | 1 MB | 128 MB | Debian 320 kB | 1 MB | 128 MB |", "320kB|1MB|128MB")
        print ""
        table("| suite, file cache | patched large | tiny | resized | vanilla large | tiny | resized | Debian large | tiny | resized |",
            "large cache|tiny cache|resized cache")
    }' "$@"
