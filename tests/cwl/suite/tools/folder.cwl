cwlVersion: v1.2
class: CommandLineTool
doc: Turns a folder around into another one.
baseCommand: [sh, -c, 'mkdir -p turned/inner && (cd "$0" && find . -type f | sort) > turned/names.txt && cp "$0/sub/b.txt" turned/inner/b.txt']
inputs:
  folder:
    type: Directory
    inputBinding: {position: 1}
outputs:
  turned:
    type: Directory
    outputBinding: {glob: turned}
