command -v python3 >/dev/null || { echo "no python3"; exit 77; }
python3 "$CLI_TESTS/tiny_model.py" base adapter
python3 "$CLI_TESTS/terminal_run.py" 80 "$LORAFOLD" merge base -a adapter -o out >shown || { cat shown; exit 1; }
grep -q '^<erase>100%  ' shown || { cat shown; exit 1; }
grep -v '^<erase>' shown | grep '%  ' && exit 1
"$LORAFOLD" merge base -a adapter -o again 2>talk >/dev/null || exit 1
! grep -q $'[\r\033]' talk
