command -v python3 >/dev/null || { echo "no python3"; exit 77; }
python3 "$CLI_TESTS/terminal_run.py" 80 "$LORAFOLD" merge fast -a one -o out -q
