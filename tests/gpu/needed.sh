#!/bin/sh
# needed.sh - program and library name neither the driver nor CUDA's runtime as what they need
#
# usage: needed.sh FILE ...
set -eu
command -v readelf >/dev/null || { echo "there is no readelf"; exit 77; }
for file; do
    found=$(readelf -d "$file" | grep NEEDED | grep -E 'libcuda|libcudart|libstdc' || true)
    [ -z "$found" ] || { echo "$file needs: $found" >&2; exit 1; }
done
