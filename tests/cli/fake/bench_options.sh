"$LORAFOLD" bench dir --file-size 64MiB --threads 2 --skip-kernels
