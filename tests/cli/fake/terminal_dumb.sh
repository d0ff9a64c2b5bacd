command -v python3 >/dev/null || { echo "no python3"; exit 77; }
TERM=dumb python3 "$CLI_TESTS/terminal_run.py" 80 "$LORAFOLD" verify fast
