$LORAFOLD merge base -a a --jobs jobs.json -o out
