[ -w /dev/full ] || { echo "no /dev/full"; exit 77; }
"$LORAFOLD" --version >/dev/full
