#!/bin/bash
# Makes the table of docs/suites.md from the rows that the suites wrote (STRATA_SUITES_ROWS): suite, server, buffers, passed, explained,
# failed. The last run of a suite counts. usage: suites-table.sh ROWS
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
    END {
        print "| suite | patched 320 kB | 1 MB | 128 MB | vanilla 320 kB | 1 MB | 128 MB | Debian 320 kB | 1 MB | 128 MB |"
        print "|---|---|---|---|---|---|---|---|---|---|"
        for (suite in suites) {
            line = "| " suite " "
            split("patched vanilla debian", servers, " ")
            split("320kB 1MB 128MB", sizes, " ")
            for (s = 1; s <= 3; s++) for (b = 1; b <= 3; b++) line = line "| " cell(suite, servers[s], sizes[b]) " "
            print line "|" | "sort"
        }
    }' "$1"
