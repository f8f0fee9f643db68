#!/bin/sh
# The C++ compiler of the build: c++, except that RocksDB's files are compiled in groups, in a third of the CPU time.
#
# RocksDB's 343 files include the same headers, and most of the time goes there. So the first file of each group is
# compiled with the others of its group in one unit, and each other file becomes an empty object. RocksDB's own
# `make unity_test` keeps its files fit for that. Cargo calls this script for everything that is C++ (see the Makefile).
set -eu

size=24                         # files of a group: larger ones save little more, and leave fewer to compile side by side
sources=rocksdb_lib_sources.txt # the list of librocksdb-sys, which calls the compiler from the folder it is in

for file; do :; done # the last argument
case $file in
rocksdb/*.cc) [ -f "$sources" ] || exec c++ "$@" ;;
*) exec c++ "$@" ;;
esac

unit=$(awk -v file="${file#rocksdb/}" -v size="$size" '
    { name[NR] = $1; if ($1 == file) at = NR }
    END {
        first = int((at - 1) / size) * size + 1
        if (!at) print "#include \"rocksdb/" file "\""
        if (at == first) for (n = first; n < first + size && n <= NR; n++) print "#include \"rocksdb/" name[n] "\""
    }' "$sources" | grep -v 'util/build_version.cc' || true)

# The same arguments with the unit, from standard input, in the place of the file.
count=$#
for argument; do
    [ "$count" = "$#" ] && set --
    [ "$argument" = "$file" ] || set -- "$@" "$argument"
done
# Clang takes a fifth less time for these files, and half the memory; it is there for the bindings. Where it finds no standard
# library, c++ does.
for compiler in clang++ c++; do
    command -v "$compiler" >/dev/null || continue
    printf '%s\n' "$unit" | "$compiler" "$@" -x c++ - && exit 0
done
exit 1
