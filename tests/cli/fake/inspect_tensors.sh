"$LORAFOLD" inspect --tensors x
