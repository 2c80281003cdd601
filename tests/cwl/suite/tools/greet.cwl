cwlVersion: v1.2
class: CommandLineTool
doc: Puts a greeting, which lies beside the tool, before a name.
requirements:
  InlineJavascriptRequirement:
    expressionLib:
      - $include: shout.js
baseCommand: cat
inputs:
  greeting:
    type: File
    default: {class: File, location: greeting.txt}
    inputBinding: {position: 1}
  name:
    type: string
stdout: $(inputs.name).txt
outputs:
  shouted:
    type: string
    outputBinding:
      outputEval: ${ return shout(inputs.name); }
  file: stdout
