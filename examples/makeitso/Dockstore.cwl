cwlVersion: v1.2
class: CommandLineTool
doc: Counts the lines of a file, each of them so many times.
baseCommand: awk
inputs:
  times: int
  reads:
    type: File
    inputBinding: {position: 2}
arguments:
  - {position: 1, prefix: -v, valueFrom: times=$(inputs.times)}
  - {position: 1, valueFrom: 'END { print NR * times }'}
stdout: count.txt
outputs:
  count: stdout
