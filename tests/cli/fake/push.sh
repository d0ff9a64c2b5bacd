"$LORAFOLD" push fast org/name --private --create-pr --commit-message "a b" --commit-description c --tag x --tag y --dataset d --token-file t
"$LORAFOLD" push --revision v2 fast org/name --json -q
