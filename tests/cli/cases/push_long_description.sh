# What the commit cannot say is refused before the work, and nothing is made or asked.
unset HF_HUB_OFFLINE
python3 "$CLI_TESTS/tiny_model.py" base adapter
"$LORAFOLD" merge base -a adapter --push-to-hub o/n --no-local --commit-description "$(head -c 70000 /dev/zero | tr '\0' x)"
status=$?
ls
exit $status
