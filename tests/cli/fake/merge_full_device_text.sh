[ -w /dev/full ] || { echo "no /dev/full"; exit 77; }
"$LORAFOLD" merge fast -a one -o out >/dev/full
