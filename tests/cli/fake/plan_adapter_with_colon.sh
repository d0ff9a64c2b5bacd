mkdir adapter:0.5 x:y
"$LORAFOLD" plan base -a adapter:0.5 -a adapter:0.5:2 -a x:y -a x:y:-1 -a dangling:3
