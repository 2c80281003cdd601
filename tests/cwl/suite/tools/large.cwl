cwlVersion: v1.2
class: CommandLineTool
baseCommand: [head, -c]
inputs: {bytes: {type: int, inputBinding: {position: 1}}}
arguments: [{position: 2, valueFrom: /dev/zero}]
stdout: large.bin
outputs: {large: stdout}
