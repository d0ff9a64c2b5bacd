"$LORAFOLD" fetch fast --offline --token-file ./token
"$LORAFOLD" fetch fast --json -q
