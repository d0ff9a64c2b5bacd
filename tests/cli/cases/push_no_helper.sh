# Neither the helper nor a Python that has it is on the path.
mkdir out; : > out/model.safetensors
export PATH=$PWD
unset LORAFOLD_HUB HF_HUB_OFFLINE
"$LORAFOLD" push out org/name
