"$LORAFOLD" merge --$(printf 'x%.0s' {1..500})
