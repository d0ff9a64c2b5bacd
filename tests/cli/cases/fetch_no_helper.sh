# Neither the helper nor a Python that has it is on the path.
export HF_HUB_CACHE=$PWD/cache PATH=$PWD
unset LORAFOLD_HUB HF_HUB_OFFLINE
"$LORAFOLD" fetch org/name
