"$LORAFOLD" --version >&-
