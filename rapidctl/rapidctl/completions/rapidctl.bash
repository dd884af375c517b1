[[ -n "${ZSH_VERSION-}" ]] && autoload -U +X bashcompinit && bashcompinit
_rapidctl() {
  local word path="" next words="" known
  for word in "${COMP_WORDS[@]:1:$((COMP_CWORD - 1))}"; do
    next="${path:+$path }$word"
    for known in "top" "run" "status" "stats" "requests" "requests ls" "requests show" "requests cancel" "partition" "partition show" "partition predict" "partition set" "partition auto" "partition undo" "partition log" "policy" "policy show" "policy set" "profile" "profile show" "events" "drain" "reload" "wait" "version" "completion" "bench" "bench run" "bench goodput" "bench compare" "record" "replay" "export" "check" "context" "context ls" "context use" "context add" "hosts" "config" "config path" "config show" "config init" "doctor" "schema" "keys" "keys show" "keys make" "keys authorize" "keys trust"; do
      [[ "$known" == "$next" ]] && path="$next"
    done
  done
  case "$path" in
    "") words="-h --help --endpoint -c --context --gpu --timeout --json --color -q --quiet -v --verbose top run status stats requests partition policy profile events drain reload wait version completion bench record replay export check context hosts config doctor schema keys" ;;
    "top") words="-h --help --endpoint -c --context --gpu --timeout --json --color -q --quiet -v --verbose --demo --replay --control --with-text --screen --no-mouse --ascii --theme" ;;
    "run") words="-h --help --endpoint -c --context --gpu --timeout --json --color -q --quiet -v --verbose --system --no-chat --max-tokens --min-tokens --temperature --top-k --top-p --min-p --repetition-penalty --presence-penalty --frequency-penalty --seed --logprobs --stop --stop-token-id --ignore-eos --n --priority --deadline --id --slo-class --no-resume" ;;
    "status") words="-h --help --endpoint -c --context --gpu --timeout --json --color -q --quiet -v --verbose --watch -n" ;;
    "stats") words="-h --help --endpoint -c --context --gpu --timeout --json --color -q --quiet -v --verbose latency units queue kv device work --watch -n" ;;
    "requests") words="-h --help --endpoint -c --context --gpu --timeout --json --color -q --quiet -v --verbose ls show cancel" ;;
    "requests ls") words="-h --help --endpoint -c --context --gpu --timeout --json --color -q --quiet -v --verbose --watch -n" ;;
    "requests show") words="-h --help --endpoint -c --context --gpu --timeout --json --color -q --quiet -v --verbose" ;;
    "requests cancel") words="-h --help --endpoint -c --context --gpu --timeout --json --color -q --quiet -v --verbose" ;;
    "partition") words="-h --help --endpoint -c --context --gpu --timeout --json --color -q --quiet -v --verbose show predict set auto undo log" ;;
    "partition show") words="-h --help --endpoint -c --context --gpu --timeout --json --color -q --quiet -v --verbose --probe --watch -n" ;;
    "partition predict") words="-h --help --endpoint -c --context --gpu --timeout --json --color -q --quiet -v --verbose --mode --decode-units --chunk" ;;
    "partition set") words="-h --help --endpoint -c --context --gpu --timeout --json --color -q --quiet -v --verbose --mode --decode-units --chunk --ttl --guard --no-guard --reason --if-epoch --wait --yes" ;;
    "partition auto") words="-h --help --endpoint -c --context --gpu --timeout --json --color -q --quiet -v --verbose --reason --if-epoch --wait" ;;
    "partition undo") words="-h --help --endpoint -c --context --gpu --timeout --json --color -q --quiet -v --verbose --if-epoch" ;;
    "partition log") words="-h --help --endpoint -c --context --gpu --timeout --json --color -q --quiet -v --verbose" ;;
    "policy") words="-h --help --endpoint -c --context --gpu --timeout --json --color -q --quiet -v --verbose show set" ;;
    "policy show") words="-h --help --endpoint -c --context --gpu --timeout --json --color -q --quiet -v --verbose" ;;
    "policy set") words="-h --help --endpoint -c --context --gpu --timeout --json --color -q --quiet -v --verbose --if-epoch" ;;
    "profile") words="-h --help --endpoint -c --context --gpu --timeout --json --color -q --quiet -v --verbose show" ;;
    "profile show") words="-h --help --endpoint -c --gpu --timeout --json --color -q --quiet -v --verbose --slo-itl --context" ;;
    "events") words="-h --help --endpoint -c --context --gpu --timeout --json --color -q --quiet -v --verbose -f --follow --since" ;;
    "drain") words="-h --help --endpoint -c --context --gpu --timeout --json --color -q --quiet -v --verbose --off --wait" ;;
    "reload") words="-h --help --endpoint -c --context --gpu --timeout --json --color -q --quiet -v --verbose --wait" ;;
    "wait") words="-h --help --endpoint -c --context --gpu --timeout --json --color -q --quiet -v --verbose" ;;
    "version") words="-h --help --endpoint -c --context --gpu --timeout --json --color -q --quiet -v --verbose" ;;
    "completion") words="-h --help --endpoint -c --context --gpu --timeout --json --color -q --quiet -v --verbose bash zsh fish" ;;
    "bench") words="-h --help --endpoint -c --context --gpu --timeout --json --color -q --quiet -v --verbose run goodput compare" ;;
    "bench run") words="-h --help --endpoint -c --context --gpu --timeout --json --color -q --quiet -v --verbose --shape --request-rate --batched --start --seconds --requests --length-scale --max-model-len --over-long --seed --salt --http --model --vocab-size --warmup --warmup-requests --drain --slo-itl --slo-ttft-floor --slo-ttft-per-1k --max-lateness --out --picture --rate-scale" ;;
    "bench goodput") words="-h --help --endpoint -c --context --gpu --timeout --json --color -q --quiet -v --verbose --shape --request-rate --batched --start --seconds --requests --length-scale --max-model-len --over-long --seed --salt --http --model --vocab-size --warmup --warmup-requests --drain --slo-itl --slo-ttft-floor --slo-ttft-per-1k --max-lateness --out --picture --first --max-runs --tolerance" ;;
    "bench compare") words="-h --help --endpoint -c --context --gpu --timeout --json --color -q --quiet -v --verbose --shape --request-rate --batched --start --seconds --requests --length-scale --max-model-len --over-long --seed --salt --http --model --vocab-size --warmup --warmup-requests --drain --slo-itl --slo-ttft-floor --slo-ttft-per-1k --max-lateness --out --picture --first --max-runs --tolerance --policy --repeats --rate-scale --goodput" ;;
    "record") words="-h --help --endpoint -c --context --gpu --timeout --json --color -q --quiet -v --verbose -o --output --for --with-text --max-tokens --csv" ;;
    "replay") words="-h --help --endpoint -c --context --gpu --timeout --json --color -q --quiet -v --verbose --screen --no-mouse --ascii --theme" ;;
    "export") words="-h --help --endpoint -c --context --gpu --timeout --json --color -q --quiet -v --verbose --csv -o --output" ;;
    "check") words="-h --help --endpoint --context --gpu --timeout --json --color -q --quiet -v --verbose latency units queue kv -w --warning -c --critical" ;;
    "context") words="-h --help --endpoint -c --context --gpu --timeout --json --color -q --quiet -v --verbose ls use add" ;;
    "context ls") words="-h --help --endpoint -c --context --gpu --timeout --json --color -q --quiet -v --verbose" ;;
    "context use") words="-h --help --endpoint -c --context --gpu --timeout --json --color -q --quiet -v --verbose" ;;
    "context add") words="-h --help --endpoint -c --context --gpu --timeout --json --color -q --quiet -v --verbose" ;;
    "hosts") words="-h --help --endpoint -c --context --gpu --timeout --json --color -q --quiet -v --verbose --watch -n" ;;
    "config") words="-h --help --endpoint -c --context --gpu --timeout --json --color -q --quiet -v --verbose path show init" ;;
    "config path") words="-h --help --endpoint -c --context --gpu --timeout --json --color -q --quiet -v --verbose" ;;
    "config show") words="-h --help --endpoint -c --context --gpu --timeout --json --color -q --quiet -v --verbose --origin" ;;
    "config init") words="-h --help --endpoint -c --context --gpu --timeout --json --color -q --quiet -v --verbose" ;;
    "doctor") words="-h --help --endpoint -c --context --gpu --timeout --json --color -q --quiet -v --verbose" ;;
    "schema") words="-h --help --endpoint -c --context --gpu --timeout --json --color -q --quiet -v --verbose" ;;
    "keys") words="-h --help --endpoint -c --context --gpu --timeout --json --color -q --quiet -v --verbose show make authorize trust" ;;
    "keys show") words="-h --help --endpoint -c --context --gpu --timeout --json --color -q --quiet -v --verbose" ;;
    "keys make") words="-h --help --endpoint -c --context --gpu --timeout --json --color -q --quiet -v --verbose --out" ;;
    "keys authorize") words="-h --help --endpoint -c --context --gpu --timeout --json --color -q --quiet -v --verbose --operator --file" ;;
    "keys trust") words="-h --help --endpoint -c --context --gpu --timeout --json --color -q --quiet -v --verbose" ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _rapidctl rapidctl
