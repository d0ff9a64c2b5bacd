#include "cli_commands.h"
#include "cli_options.h"

const struct cli_command cli_commands[] = {
    { "merge", CLI_MERGE, "BASE", false,
      "fold adapters into a base and write a complete model directory",
      "[BASE] -a ADAPTER[:WEIGHT] [-a ...] -o OUT [OPTION ...]",
      "BASE is a model directory, one .safetensors file, or org/name[@revision]; without it the "
      "base that the first adapter names is taken. ADAPTER is a PEFT directory, or "
      "org/name[@revision]. What is named so and is not in the Hugging Face cache is fetched into "
      "it (see 'lorafold fetch'). WEIGHT is a factor on the adapter's "
      "own scale, 1 if not given, and may be negative. An ADAPTER that exists as it is written is "
      "taken whole, even with a ':' in it; otherwise what is behind its last ':' is the weight.\n"
      "\n"
      "The base is streamed and never held, so memory does not grow with the model. Everything "
      "that can be checked is checked before a weight is read: each tensor of each adapter must "
      "find its place, or nothing is written. OUT appears in one step when it is complete; "
      "after an error or Ctrl-C it is as it was. The plan goes to standard error before the work, "
      "the summary to standard output after it.\n"
      "\n"
      "With --each, --adapters-dir or --jobs several models are made in one pass over the base, "
      "each "
      "in its own directory below OUT, with the bytes that it would have alone, and published when "
      "it is complete. An adapter that cannot be folded is left out with a warning before the work "
      "begins (--strict refuses all); an output that fails does not stop the others. The exit "
      "status "
      "is 0 only if every output is complete.\n"
      "\n"
      "With --save-method lora OUT is the one adapter itself, in PEFT's spelling, and BASE is only "
      "checked against it; where the base that it names is not here, that is left out.\n",
      "  lorafold merge ./Llama-3.1-8B -a ./chat -o ./merged\n"
      "  lorafold merge -a ./chat -o ./merged --dtype bf16\n"
      "  lorafold merge ./base -a ./chat:0.7 -a ./style:-0.2 -o ./mixed --overwrite\n"
      "  lorafold merge -a ./checkpoint-500 -o ./adapter --save-method lora --dtype bf16\n"
      "  lorafold merge ./base -a ./chat -a ./style --each -o ./models\n"
      "  lorafold merge ./base --adapters-dir ./adapters -o ./models\n"
      "  lorafold merge org/base -a org/adapter --push-to-hub org/merged --no-local\n",
      cli_merge, NULL },
    { "plan", CLI_PLAN, "BASE", false, "show what a merge would do, and stop",
      "[BASE] -a ADAPTER[:WEIGHT] [-a ...] [-o OUT] [OPTION ...]",
      "Reads headers and configurations, makes every check that 'lorafold merge' makes before it "
      "reads weights, and prints the plan on standard output: model, adapters, tensors folded and "
      "copied, bytes in and out, memory. With OUT its checks (free space, what exists) are made "
      "too. Writes nothing; an adapter that is not in the Hugging Face cache is fetched into it, a "
      "base is not. Arguments and options are those of 'lorafold merge'.\n",
      "  lorafold plan ./Llama-3.1-8B -a ./chat\n"
      "  lorafold plan ./base -a ./chat -o /mnt/models/merged --json\n",
      cli_merge, NULL },
    { "verify", CLI_VERIFY, "OUT", true,
      "read a written model again and compare it with its manifest",
      "OUT [--deep [BASE]] [OPTION ...]",
      "Reads every file that OUT/lorafold.json names (or, where OUT holds several outputs, that of "
      "each "
      "of them), at the speed of the disk, and compares size "
      "and digest with what was written. The first damaged file and block are named and the exit "
      "status is 5; other differences are warnings.\n"
      "\n"
      "What was cloned from the base was never read, so there is no digest of it: it is passed "
      "over "
      "and its bytes are told, or compared with the base by --deep.\n",
      "  lorafold verify ./merged\n"
      "  lorafold verify ./merged --deep ./Llama-3.1-8B\n"
      "  lorafold verify ./merged -q && echo intact\n",
      cli_verify, NULL },
    { "inspect", CLI_INSPECT, "PATH", true, "say what a base, an adapter, a file or an output is",
      "PATH [OPTION ...]",
      "PATH is a model directory, a PEFT adapter directory, one .safetensors file, or a directory "
      "that lorafold wrote. Only headers and configurations are read.\n",
      "  lorafold inspect ./my-adapter\n"
      "  lorafold inspect ./Llama-3.1-8B --tensors\n",
      cli_inspect, NULL },
    { "fetch", CLI_FETCH, "REPO", true, "fetch a base or an adapter into the Hugging Face cache",
      "REPO[@REVISION] [OPTION ...]",
      "REPO is org/name on the Hugging Face Hub. What a merge needs of it is fetched (safetensors "
      "files, configuration, tokenizer, code; not the same weights in other formats), and the "
      "directory is printed. What is in the cache whole is not asked for again. The cache is that "
      "of the Hugging Face tools: HF_HUB_CACHE, HF_HOME, HF_ENDPOINT, HF_HUB_OFFLINE and the rest "
      "count as they do there. 'lorafold merge' does the same where it is given such a name.\n"
      "\n"
      "The program lorafold-hub speaks to the Hub, a Python program on huggingface_hub: what "
      "LORAFOLD_HUB names, else lorafold-hub beside lorafold or on the path, else python3 -m "
      "lorafold_hub; -v says which.\n",
      "  lorafold fetch org/name\n"
      "  lorafold fetch org/name@v1.0 --token-file ~/token\n",
      cli_fetch, NULL },
    { "push", CLI_PUSH, "DIR", true, "send a model or an adapter to the Hugging Face Hub",
      "DIR REPO [OPTION ...]",
      "All files of DIR but hidden ones go to REPO, org/name on the Hugging Face Hub, in one "
      "commit. "
      "The repository is made if it is not there. What the Hub has is not sent again, so a push "
      "that "
      "was interrupted goes on where it was; until the commit nothing of it can be seen. Files of "
      "which DIR/lorafold.json knows digests are compared with them before they are sent: damaged "
      "weights are not pushed (exit status 5). A model card that is there keeps its text.\n"
      "\n"
      "Tokens come from HF_TOKEN, from where 'hf auth login' puts them, or from --token-file, and "
      "are never an argument.\n",
      "  lorafold push ./merged org/name --private\n"
      "  lorafold push ./merged org/name --revision v2 --commit-message 'second try'\n",
      cli_push, "REPO" },
    { "bench", CLI_BENCH, "DIR", false, "measure this machine's disk, memory and kernels",
      "[DIR] [OPTION ...]",
      "Writes, reads and copies a test file in DIR (default: the current directory) past the page "
      "cache, then measures memory and kernels, which together say how fast a merge can be here. "
      "The test file is removed at the end.\n",
      "  lorafold bench /mnt/models\n"
      "  lorafold bench --skip-disk\n",
      cli_bench, NULL },
    { "help", CLI_HELP, "TOPIC", false, "show help on a command or a text", "[COMMAND | TEXT]",
      "Without an argument the commands and texts are listed.\n",
      "  lorafold help merge\n"
      "  lorafold help exit-codes\n",
      cli_help, NULL },
    { 0 },
};

const struct cli_topic cli_topics[] = {
    { "exit-codes", "what each exit status means",
      "exit status of lorafold:\n"
      "    0  done\n"
      "    1  the machine, the network or the Hub failed: I/O, no space, no memory, no\n"
      "       access, or standard output cannot be written; trying again may help.  Also\n"
      "       if not all of several outputs could be made\n"
      "    2  cannot be run as given: options, a path that is not there, OUT exists or\n"
      "       conflicts with BASE, memory budget too small\n"
      "    3  an input is damaged or not supported, or a result is not finite\n"
      "    4  base and adapter do not fit each other\n"
      "    5  verify, or the reading again before a push, found a difference\n"
      "  129  ended by SIGHUP\n"
      "  130  interrupted by SIGINT (Ctrl-C); a second one leaves at once\n"
      "  143  ended by SIGTERM\n"
      "\n"
      "After 2 and 4, and after a 3 that was found before the work, nothing has been\n"
      "written.  After any other failure nothing that looks like a finished model is\n"
      "left, and what existed before is as it was, but for outputs that were complete\n"
      "before: those of a push that failed, and others of several.  Treat unknown codes\n"
      "as failure.\n" },
    { "jobs", "the file for --jobs",
      "The file for --jobs is a JSON object with a list of outputs:\n"
      "\n"
      "  { \"outputs\": [\n"
      "      { \"name\": \"chat\", \"adapters\": [\"./chat\"] },\n"
      "      { \"name\": \"mixed\", \"dtype\": \"bf16\", \"max_shard_size\": \"2GB\",\n"
      "        \"adapters\": [\"./chat\", { \"path\": \"./style\", \"weight\": 0.3 }] } ] }\n"
      "\n"
      "  name      the directory below OUT; if it is left out, the first adapter's name\n"
      "  adapters  paths or org/name[@revision], as behind -a, or objects with path and\n"
      "            weight; their deltas are added in this order\n"
      "  save_method, dtype, quant_type, tied, lora_b_layout, max_shard_size, tokenizer,\n"
      "  variant   as the options of these names\n"
      "  double_quant, allow_unused, allow_nonfinite, safe_serialization\n"
      "            true or false\n"
      "  skip      a list of modules\n"
      "\n"
      "What a job does not say is taken from the options on the command line.  BASE,\n"
      "--base-numerics, --memory and all that is not named here is the same for all.\n"
      "A field that is not known or has a wrong value is refused by its place, such as\n"
      "outputs[1].adapters[0].weight, and so is everything else that is wrong.\n" },
    { "json", "the objects that --json prints",
      "With --json standard output carries one JSON object per line.  Each has a member\n"
      "\"type\":\n"
      "\n"
      "  plan      what will be done (merge, plan)\n"
      "  progress  bytes_done, bytes_total, seconds, limit (read, compute, write, download,\n"
      "            upload or prepare) and file; about once a second and at the end; of\n"
      "            several outputs also outputs_done and outputs_total\n"
      "  warning   text; the result may not be what was meant\n"
      "  notice    text\n"
      "  detail    text; with -v only\n"
      "  report    the result of a merge, a verification or a push\n"
      "  base, adapter, file, output\n"
      "            what inspect found; with --tensors followed by one tensor per line\n"
      "  fetch     directory\n"
      "  bench     what was measured\n"
      "  error     code, which is the exit status, and text\n"
      "\n"
      "A run that fails ends with error, a merge and a verification that succeed with\n"
      "report.  Readers should pass over types and members that they do not know.  -q\n"
      "leaves out progress and notice.  Standard error carries the sentence of an error\n"
      "and nothing else.\n" },
    { 0 },
};
