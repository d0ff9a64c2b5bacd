"$LORAFOLD" inspect --tensors
