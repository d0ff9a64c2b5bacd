ln -s nowhere a:1
"$LORAFOLD" plan base -a a:1
