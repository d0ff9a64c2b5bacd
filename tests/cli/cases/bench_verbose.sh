"$LORAFOLD" bench -v --file-size 64MiB --skip-kernels
