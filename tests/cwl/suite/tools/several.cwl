cwlVersion: v1.2
$graph:
  - id: echo
    class: CommandLineTool
    baseCommand: echo
    inputs: {text: {type: string, inputBinding: {}}}
    stdout: said.txt
    outputs: {said: stdout}
  - id: main
    class: Workflow
    inputs: {text: string}
    outputs: {said: {type: File, outputSource: say/said}}
    steps:
      say: {run: '#echo', in: {text: text}, out: [said]}
