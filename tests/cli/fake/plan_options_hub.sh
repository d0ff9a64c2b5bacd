"$LORAFOLD" plan --base fast -a x --offline --token-file=./token
