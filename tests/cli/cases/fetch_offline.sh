export HF_HUB_CACHE=$PWD/cache
"$LORAFOLD" fetch org/name --offline
echo $?
HF_HUB_OFFLINE=1 "$LORAFOLD" fetch org/name
