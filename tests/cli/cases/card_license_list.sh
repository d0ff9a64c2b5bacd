# A licence may be a list, and lines may end as on Windows.
python3 "$CLI_TESTS/tiny_model.py" base adapter
printf -- '---\r\nlicense:\r\n- mit\r\n- apache-2.0\r\ntags:\r\n- x\r\nlicense_name: both\r\n---\r\n# Title\r\n' > base/README.md
"$LORAFOLD" merge base -a adapter -o out -q
sed -n '/^license/,/^license_name/p' out/README.md
