"$LORAFOLD" plan base -a a:1 -a b:-0.25 -a c:1e-3 -a d:+2. -a e:.5 -a f:0
