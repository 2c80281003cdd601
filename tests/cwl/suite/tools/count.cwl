cwlVersion: v1.2
class: CommandLineTool
doc: Counts the lines of a file; its index has to lie beside it.
baseCommand: [sh, -c, 'test -f "$0.idx" && wc -l < "$0"']
inputs:
  text:
    type: File
    secondaryFiles: [.idx]
    inputBinding: {position: 1}
stdout: count.txt
outputs:
  count: stdout
