cwlVersion: v1.2
class: Workflow
doc: Stands for a workflow that downloads with a key, and counts what it has got.
inputs:
  dds_user_key: string
  projectName: string
  input_file: string
outputs:
  report: {type: File, outputSource: count/report}
steps:
  download:
    in: {key: dds_user_key, name: input_file}
    out: [file]
    run:
      class: CommandLineTool
      baseCommand: [sh, -c, 'test -n "$0" && printf "@read\nACGT\n+\nIIII\n" > "$1"']
      inputs:
        key: {type: string, inputBinding: {position: 1}}
        name: {type: string, inputBinding: {position: 2}}
      outputs:
        file: {type: File, outputBinding: {glob: $(inputs.name)}}
  count:
    in: {file: download/file, project: projectName}
    out: [report]
    run:
      class: CommandLineTool
      baseCommand: [wc, -l]
      inputs:
        project: string
        file: {type: File, streamable: true}
      stdin: $(inputs.file.path)
      stdout: $(inputs.project).txt
      outputs:
        report: stdout
