"$LORAFOLD" bench dir --skip_disk --json
