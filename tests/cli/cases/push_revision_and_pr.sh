mkdir out; : > out/model.safetensors
"$LORAFOLD" push out org/name --revision v2 --create-pr
