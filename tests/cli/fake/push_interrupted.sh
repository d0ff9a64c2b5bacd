command -v python3 >/dev/null || { echo "no python3"; exit 77; }
python3 "$CLI_TESTS/signal_run.py" INT "$LORAFOLD" push waits org/name
