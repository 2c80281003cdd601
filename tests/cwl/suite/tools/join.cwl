cwlVersion: v1.2
class: CommandLineTool
doc: Joins files; the second output is the same array, sorted by name.
requirements:
  InlineJavascriptRequirement: {}
baseCommand: cat
inputs:
  texts:
    type: File[]
    inputBinding: {position: 1}
stdout: joined.txt
outputs:
  joined: stdout
  names:
    type: string[]
    outputBinding:
      outputEval: $(inputs.texts.map(function(each) { return each.basename; }).sort())
