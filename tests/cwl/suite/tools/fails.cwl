cwlVersion: v1.2
class: CommandLineTool
baseCommand: [sh, -c, 'echo it is broken >&2; exit 3']
inputs: []
outputs: []
