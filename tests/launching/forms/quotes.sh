A='x y'
python train.py --one "$A" --two '$A' --three \$A --four "\"$A\"" --five $'tab\there' --six a"b c"'d e'f --seven "a\
b" --eight $A/$A.sh --nine="$A" --json '{"a": [1, 2]}' --back "\\n" --dollar "$" --pid-like "5$"
