mkdir out; : > out/config.json
"$LORAFOLD" push out org/name
"$LORAFOLD" push none org/name
: > out/.lorafold-work
"$LORAFOLD" push out org/name
